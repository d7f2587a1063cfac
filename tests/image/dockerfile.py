"""deploy/Dockerfile without a container engine: each instruction carried out in a directory, by debootstrap and chroot.

Only what our file uses is understood; anything else is refused, so that nothing of it is skipped in silence.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.deploy.objects import DEPLOY, ROOT
from tests.deploy.test_image import copy
from tests.peers.program import peers

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE = re.compile(r"debian:\$\{DEBIAN\}-slim")
CERTIFICATES = "/etc/ssl/certs"
SANDBOX = """
mount --make-rprivate /
mount -t proc proc "$0/proc"
mount --rbind /dev "$0/dev"
for path in $BORROWED; do mkdir -p "$0$path" && mount --bind "$path" "$0$path"; done
exec chroot "$0" /bin/sh -c "$1"
"""


class Instruction(NamedTuple):
    """A line of the file, with what was continued."""

    word: str
    text: str


def instructions() -> list[Instruction]:
    """What the file says, in order."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    return [Instruction(*line.split(None, 1)) for line in whole.splitlines() if line]


class Image(NamedTuple):
    """What comes out: a root file system, and what runs in it if nothing else is said."""

    root: Path
    command: list[str]


def build(directory: Path) -> Image:
    """Carries out the file below *directory*; raises with the words of what failed."""
    stages: dict[str, Path] = {}
    variables: dict[str, str] = {}
    root = work = directory
    command: list[str] = []
    for one in instructions():
        if one.word == "ARG":
            name, _, value = one.text.partition("=")
            variables[name] = value
        elif one.word == "FROM":
            image, *named = one.text.split(" AS ")
            assert IMAGE.fullmatch(image), image
            root = work = directory / f"stage{len(stages)}"
            stages[named[0] if named else ""] = root
            subprocess.run(["cp", "-a", debian(variables["DEBIAN"]), root], check=True)
        elif one.word == "WORKDIR":
            work = root / one.text.lstrip("/")
            work.mkdir()
        elif one.word == "COPY":
            carry(one.text.split(), stages, root, work)
        elif one.word == "RUN":
            run(root, f"cd {shlex.quote('/' + str(work.relative_to(root)))} && {one.text}")
        elif one.word in ("ENTRYPOINT", "CMD"):
            command += json.loads(one.text)
        else:
            assert one.word == "LABEL", one
    return Image(root, command)


def debian(release: str) -> Path:
    """The system that the image begins with; made once, kept beside the peers."""
    made = peers() / f"debian-{release}"
    if not made.exists():
        if shutil.which("debootstrap") is None:
            raise FileNotFoundError("no debootstrap here: run `apt-get install debootstrap`")
        begun = made.with_suffix(".begun")
        shutil.rmtree(begun, ignore_errors=True)
        subprocess.run(["debootstrap", "--variant=minbase", release, begun], check=True, capture_output=True)
        begun.rename(made)
    return made


def carry(words: Sequence[str], stages: dict[str, Path], root: Path, work: Path) -> None:
    """COPY: the build's context as Dockerfile.dockerignore leaves it, or a directory of another stage."""
    if words[0] == "." == words[1]:
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines():
            if line.startswith("!"):
                copy(ROOT / line[1:], work / line[1:])
        return
    stage, source, to = words
    shutil.copytree(stages[stage.removeprefix("--from=")] / source.lstrip("/"), root / to.lstrip("/"), symlinks=True)


def run(root: Path, command: str) -> None:
    """RUN: in the stage, with this machine's way to the package registries."""
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    network = {
        name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "HTTP", "NO_PROXY"))
    }
    borrowed = [path for path in (network.get("PIP_FIND_LINKS", ""),) if Path(path).is_dir() and path]
    if (root / CERTIFICATES.lstrip("/")).is_dir() and not command.partition("&& ")[2].startswith("apt-get"):
        borrowed.append(CERTIFICATES)
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", SANDBOX, str(root), command],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **network, "BORROWED": " ".join(borrowed)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
