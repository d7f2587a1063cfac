"""Compiles what is in C into the wheel: nothing is compiled on a node."""

import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Compile(BuildHookInterface[Any]):
    """Runs what `make bpf` runs; an editable install leaves that to make."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable" and self.target_name == "wheel":
            for script in ("compile_bpf.sh", "compile_native.sh"):
                subprocess.run([str(Path(self.root, "scripts", script))], check=True)
