"""What deploy/Dockerfile makes, made by hand: its installation runs alone, with the packages of its last stage."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.deploy.objects import DEPLOY, ROOT

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_MB = 200


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of the first stage: from a tree with no more in it than the build's context has."""
    source, to = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("image") / "otelbpf"
    for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines():
        if line.startswith("!"):
            copy(ROOT / line[1:], source / line[1:])
    environment = {"PATH": os.environ["PATH"], "HOME": str(to.parent), "PYTHON": "/usr/bin/python3"}
    network = {
        name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "HTTP", "NO_PROXY"))
    }
    done = subprocess.run(
        [source / "deploy" / "install.sh", to], env=environment | network, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return to


def copy(source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__", "objects"))
    else:
        shutil.copy(source, to)


def run(installed: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the agent with no other program at hand."""
    environment = {"PATH": "", "HOME": "/nonexistent", "OTELBPF_INSTANCE": str(installed)}
    return subprocess.run(
        [installed / "bin" / "otelbpf", *words], env=environment, capture_output=True, text=True, check=False, cwd="/"
    )


def test_it_runs_without_a_compiler(installed):
    done = run(installed, "run", "--for", "1s", "--set", "health.endpoint=", "--set", "telemetry.enabled=false")
    assert done.returncode == 0, done.stderr
    assert "ready: dns_lookup" in done.stderr


def test_what_it_imports_late_is_there(installed):
    code = "import kubernetes.client, kubernetes.config, otelbpf.doctor, otelbpf.replay, otelbpf.export.sdk, numpy"
    done = subprocess.run([installed / "bin" / "python", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_is_compiled_at_run_time(installed):
    modules = {path for path in installed.rglob("*.py") if "site-packages/otelbpf" in str(path)}
    assert modules
    for module in modules:
        assert list((module.parent / "__pycache__").glob(f"{module.stem}.*.pyc")), module


def test_no_tool_is_left(installed):
    assert not list(installed.glob("lib/python3*/site-packages/pip"))
    assert not list(installed.glob("lib/python3*/site-packages/pytest"))


def test_its_size(installed):
    size = sum(path.lstat().st_size for path in installed.rglob("*") if path.is_file() and not path.is_symlink())
    assert size < LIMIT_MB * 1_000_000


def test_libraries_come_from_the_packages_of_the_last_stage(installed):
    """Every shared library outside of the tree belongs to a package that the image has."""
    libraries = set()
    for path in installed.rglob("*.so*"):
        text = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        libraries |= {found for found in re.findall(r"=> (\S+)", text) if not found.startswith(str(installed))}
    assert "not" not in libraries, "a library is not found"
    for library in libraries:
        assert package_of(library) in closure(last_stage()), library


def last_stage() -> list[str]:
    text = (DEPLOY / "Dockerfile").read_text().rsplit("FROM", 1)[1]
    (packages,) = re.findall(r"--no-install-recommends ([^\\\n]*)", text)
    return packages.split()


def package_of(library: str) -> str:
    for path in (library, f"/usr{library}", os.path.realpath(library)):
        done = subprocess.run(["dpkg", "-S", path], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.split(":")[0]
    return library


def closure(packages: list[str]) -> set[str]:
    """The packages with all that they depend on."""
    words = ["apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"]
    words += ["--no-replaces", "--no-enhances", *packages]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return {line for line in text.splitlines() if not line.startswith((" ", "<"))}
