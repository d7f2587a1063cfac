"""The image runs as the DaemonSet runs it: read-only, with its capabilities and mounts and no more, and sees this node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.deploy.objects import MANIFESTS, container, of_kind, read
from tests.e2e.agent import parse_summary
from tests.image.dockerfile import Image, build

if TYPE_CHECKING:
    from collections.abc import Iterator

DAEMON_SET = read(MANIFESTS / "daemonset.yaml")
CAPABILITIES = container(DAEMON_SET)["securityContext"]["capabilities"]["add"]
LIMIT_MB = 400
RUNTIME = """
mount --make-rprivate /
mount --bind "$0" "$0"
mount -t proc proc "$0/proc"
mount -t sysfs -o ro sysfs "$0/sys"
mount -t tmpfs tmpfs "$0/dev"
mknod -m 666 "$0/dev/null" c 1 3
mknod -m 666 "$0/dev/urandom" c 1 9
for path in $HOST_PATHS; do mount --rbind "$path" "$0$path"; done
mount -o remount,bind,ro "$0"
exec chroot "$0" setpriv --no-new-privs --inh-caps "$1" --ambient-caps "$1" --bounding-set "$1" "${@:2}"
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    directory = tmp_path_factory.mktemp("image")
    yield build(directory)
    subprocess.run(["rm", "-r", "--one-file-system", directory], check=True)


def host_paths(image: Image) -> list[str]:
    """What the DaemonSet mounts of the host and this machine has, with a place for each in the image as kubelet makes."""
    volumes = of_kind(DAEMON_SET, "DaemonSet")["spec"]["template"]["spec"]["volumes"]
    paths = [one["hostPath"]["path"] for one in volumes if one.get("hostPath", {}).get("type") in ("Directory", "File")]
    (image.root / "etc" / "machine-id").touch()
    return [path for path in paths if Path(path).exists()]


def run(image: Image, *words: str) -> subprocess.CompletedProcess[str]:
    mask = ",".join(("-all", *(f"+{name.lower()}" for name in CAPABILITIES)))
    return subprocess.run(
        ["unshare", "--mount", "--cgroup", "bash", "-ec", RUNTIME, str(image.root), mask, *words],
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "OTELBPF_INSTANCE": str(image.root),
            "HOST_PATHS": " ".join(host_paths(image)),
        },
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_it_sees_this_node(image):
    """Without a file system to write, a compiler, or a capability more: with a connection made by a process of ours."""
    begun = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time, socket\nwhile True: socket.socket().connect_ex(('127.0.0.1', 9)); time.sleep(.1)",
        ]
    )
    try:
        done = run(
            image, *image.command, "--for", "3s", "--set", "health.endpoint=", "--set", "telemetry.enabled=false"
        )
    finally:
        begun.kill()
        begun.wait()
    assert done.returncode == 0, done.stderr
    assert "ready: dns_lookup" in done.stderr
    assert all(row.balanced for row in parse_summary(done.stderr.splitlines()).events.values())
    assert f"[{begun.pid}]" in done.stdout


def test_check_finds_nothing_missing(image):
    done = run(image, image.command[0], "check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all well" in done.stdout


def test_nothing_can_be_written_and_nothing_compiles(image):
    done = run(image, "/bin/sh", "-c", "touch /etc/x /opt/x /tmp/x; command -v cc gcc clang pip")
    assert done.stderr.count("Read-only file system") == 3
    assert done.stdout == ""


def test_it_is_small(image):
    size = subprocess.run(["du", "-sxm", image.root], capture_output=True, text=True, check=True).stdout
    assert int(size.split()[0]) < LIMIT_MB
