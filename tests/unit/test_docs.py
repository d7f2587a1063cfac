"""The documentation says what the code does: generated parts are fresh, links lead somewhere, settings are used."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import inspect

from otelbpf.config import Config
from otelbpf.config.settings import EXPORTERS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")


def test_generated_parts_are_fresh() -> None:
    command = [sys.executable, ROOT / "scripts" / "docs.py", "--check"]
    checked = subprocess.run(command, check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not broken


def names_of_settings() -> set[str]:
    found = set()

    def walk(kind: inspect.Type) -> None:
        kind = kind.type if isinstance(kind, inspect.Metadata) else kind
        for field in kind.fields if isinstance(kind, inspect.StructType) else ():
            found.add(field.name)
            walk(field.type)

    for kind in (Config, *EXPORTERS.values()):
        walk(inspect.type_info(kind))
    return found


def test_no_setting_is_without_effect() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "otelbpf").rglob("*.py") if path.parent.name != "config")
    by_name = {"tcp_connection", "dns_lookup", "dns_server", "process"}  # probes and events look up theirs
    unused = {name for name in names_of_settings() - by_name if not re.search(rf"\.{name}\b", code)}
    assert not unused
