"""A real Kubernetes API server with its etcd, on loopback: no scheduler, no controllers, no kubelet.

Whoever uses it makes what those would make: pods with a node and a status, replica sets, endpoint slices. Admission of
service accounts is off, as nobody makes the default account of a namespace.
"""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from tests.peers.certificates import Authority
from tests.peers.program import Program, binary, free_ports

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

ADMIN, AGENT = "admin-token", "agent-token"
TOKENS = f"{ADMIN},admin,1,system:masters\n{AGENT},agent,2,\n"
"""The agent's user has no role until a test gives it one."""
NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc"


class ApiServer:
    """Runs while entered. `server` and `etcd` can be stopped, killed and started alone; what is stored stays."""

    def __init__(self, directory: Path, *more: str) -> None:
        """*more* are arguments of the server."""
        self.directory = directory
        self.more = more
        self.authority = directory / "tls.crt"
        self._open = ExitStack()

    def __enter__(self) -> Self:
        client_port, peer_port, self.port = free_ports(3)
        self._make_keys()
        self.store = store = f"http://127.0.0.1:{client_port}"
        self.etcd = Program("etcd", self._etcd_arguments(store, peer_port), self.directory, f"{store}/health")
        self.server = Program(
            "kube-apiserver", self._server_arguments(store), self.directory, f"{self.url}/readyz",
            authority=self.authority, headers={"Authorization": f"Bearer {ADMIN}"},
        )  # fmt: skip
        with ExitStack() as opening:
            opening.enter_context(self.etcd)
            opening.enter_context(self.server)
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def kubeconfig(self, token: str = ADMIN) -> Path:
        """A kubeconfig file for whoever has *token*."""
        return self.kubeconfig_of(token[:20], {"token": token})

    def kubeconfig_of(self, name: str, user: dict[str, Any], **cluster: Any) -> Path:
        """A kubeconfig file with that *user*, in the format's own words, and more about the *cluster*."""
        path = self.directory / f"{name}.kubeconfig"
        cluster = {"server": self.url, "certificate-authority": str(self.authority), **cluster}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(content))
        return path

    def kubectl(self, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as admin to its end, with *given* on its standard input."""
        return self.run("kubectl", *words, given=given)

    def run(self, program: str, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a client program (kubectl, helm) as admin; it sees nothing of this user's own configuration."""
        environment = {"KUBECONFIG": str(self.kubeconfig()), "HOME": str(self.directory), "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            [str(binary(program)), *words],
            input=given, capture_output=True, text=True, check=False, timeout=120, env=environment,
        )  # fmt: skip

    def apply(self, *objects: dict[str, Any]) -> None:
        """Creates or changes *objects*; raises with the server's words when it refuses."""
        stream = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        done = self.kubectl("apply", "--server-side", "-f", "-", given=stream)
        if done.returncode:
            raise RuntimeError(done.stderr)

    def make_certificate(self) -> None:
        """A certificate that vouches for itself, in place of the one there is; the server takes it up when it starts."""
        self._run_all(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=kube-apiserver"
            f" -addext {NAMES} -keyout tls.key -out tls.crt"
        )

    def _make_keys(self) -> None:
        (self.directory / "tokens.csv").write_text(TOKENS)
        self._run_all(
            "openssl ecparam -name prime256v1 -genkey -noout -out sa.key",
            "openssl ec -in sa.key -pubout -out sa.pub",
        )
        self.make_certificate()
        self.clients = Authority(self.directory).create()

    def _run_all(self, *commands: str) -> None:
        for command in commands:
            subprocess.run(command.split(), cwd=self.directory, check=True, capture_output=True)

    def _etcd_arguments(self, store: str, peer_port: int) -> list[str]:
        peer = f"http://127.0.0.1:{peer_port}"
        return [
            *("--name", "peer", "--data-dir", "etcd", "--unsafe-no-fsync", "--log-level", "warn"),
            *("--listen-client-urls", store, "--advertise-client-urls", store, "--listen-peer-urls", peer),
            *("--initial-advertise-peer-urls", peer, "--initial-cluster", f"peer={peer}"),
        ]

    def _server_arguments(self, store: str) -> list[str]:
        return [
            *("--etcd-servers", store, "--bind-address", "127.0.0.1", "--secure-port", str(self.port)),
            *("--advertise-address", "127.0.0.1", "--tls-cert-file", "tls.crt", "--tls-private-key-file", "tls.key"),
            *("--token-auth-file", "tokens.csv", "--authorization-mode", "RBAC"),
            *("--client-ca-file", str(self.clients.certificate), *self.more),
            *("--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", "sa.pub"),
            *(
                "--service-account-signing-key-file",
                "sa.key",
                "--service-cluster-ip-range",
                "10.96.0.0/16,fd00:96::/108",
            ),
            *("--endpoint-reconciler-type", "none", "--disable-admission-plugins", "ServiceAccount"),
        ]
