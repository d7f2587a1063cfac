"""Who we are to a real API server, and whom we believe: tokens that end, plug-ins, certificates, and what is none."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

from otelbpf.config import Kubernetes, Retry
from otelbpf.enrich.kubernetes import pace
from otelbpf.enrich.kubernetes import watcher as watcher_module
from otelbpf.enrich.kubernetes.access import Access
from otelbpf.enrich.kubernetes.api import Api
from otelbpf.enrich.kubernetes.refusals import ApiError
from otelbpf.enrich.kubernetes.watcher import Watcher
from tests.e2e.polling import wait_for
from tests.kubernetes.cluster import Objects
from tests.kubernetes.roles import let_in
from tests.kubernetes.tokens import ask_token, delete_account, ending_in, make_account
from tests.peers.api_server import ADMIN, AGENT, ApiServer
from tests.peers.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SAY_TOKEN = """
import json, sys
with open(sys.argv[1]) as file: token = file.read()
if not token: sys.exit("no token today")
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}}))
"""
SAY_CERTIFICATE = """
import json, sys
certificate, key = (open(name).read() for name in sys.argv[1:3])
status = {"clientCertificateData": certificate, "clientKeyData": key}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ApiServer, Objects]]:
    """A server that tests kill and start, one after the other."""
    with ApiServer(tmp_path_factory.mktemp("access")) as running:
        objects = Objects(running)
        objects.namespace("shop")
        let_in(
            objects,
            {"kind": "User", "name": "agent"},
            {"kind": "ServiceAccount", "name": "otelbpf", "namespace": "shop"},
        )
        yield running, objects


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test has no time for the waits of a node among many."""
    monkeypatch.setattr(pace, "BACKOFF", Retry(initial_interval=0.2, max_interval=1.0))


class Account:
    """A service account's directory in a pod, and the pod's environment."""

    def __init__(self, directory: Path, server: ApiServer, token: str) -> None:
        self.directory = directory
        directory.mkdir()
        shutil.copy(server.authority, directory / "ca.crt")
        (directory / "namespace").write_text("shop")
        self.rotate(token)
        self.environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}

    def rotate(self, token: str) -> None:
        """As the kubelet does it: the file is another from one moment to the next."""
        (self.directory / "next").write_text(token)
        (self.directory / "next").rename(self.directory / "token")

    def watcher(self) -> Watcher:
        settings = Kubernetes(enabled=True, node_name="n1", peers="off")
        return Watcher(settings, self.environ, "host", service_account=self.directory)


def answered(watcher: Watcher) -> bool:
    return all(state.answered for state in watcher.states())


def reasons(watcher: Watcher) -> list[str]:
    return [state.reason for state in watcher.states()]


def restart(server: ApiServer, watcher: Watcher) -> None:
    server.server.kill()
    wait_for(lambda: not any(state.answered for state in watcher.states()), "all down")
    server.server.start()


def test_a_token_that_ended_and_was_exchanged_is_read_again_at_once(tmp_path, own):
    server, objects = own
    make_account(objects, "shop", "otelbpf")
    token = ask_token(objects, "shop", "otelbpf")
    ending = ending_in(server, token, 10)
    account = Account(tmp_path / "account", server, ending + "\n")
    with account.watcher() as watcher:
        wait_for(lambda: answered(watcher), "the first token's answers")
        account.rotate(token)
        wait_for(lambda: "401" in ask(configured(server.kubeconfig_of("ending", {"token": ending}))), "its end", 40)
        restart(server, watcher)
        wait_for(lambda: answered(watcher), "the second token's answers", 40)
    assert not [sentence for sentence in watcher.sentences if "401" in sentence]
    delete_account(objects, "shop", "otelbpf")


def test_a_token_that_was_revoked_is_told_until_there_is_another(tmp_path, own):
    server, objects = own
    make_account(objects, "shop", "otelbpf")
    account = Account(tmp_path / "account", server, ask_token(objects, "shop", "otelbpf"))
    with account.watcher() as watcher:
        wait_for(lambda: answered(watcher), "the first token's answers")
        delete_account(objects, "shop", "otelbpf")
        make_account(objects, "shop", "otelbpf")
        restart(server, watcher)
        wait_for(lambda: {"HTTP 401: Unauthorized"} == set(reasons(watcher)), "all refused", 40)
        account.rotate("not a token: \n\n two lines \x00")
        wait_for(lambda: any("one line of text" in reason for reason in reasons(watcher)), "a file that is none", 60)
        (account.directory / "token").unlink()
        wait_for(lambda: any("cannot reach the API server" in reason for reason in reasons(watcher)), "no file", 60)
        account.rotate(ask_token(objects, "shop", "otelbpf"))
        wait_for(lambda: answered(watcher), "the second token's answers", 90)
    assert [sentence for sentence in watcher.sentences if sentence == "kubernetes: pods: answered again"]


def test_a_certificate_that_is_exchanged_under_way(tmp_path, own):
    server, objects = own
    pod = objects.pod("shop", "before", "n1")
    trusted = tmp_path / "ca.crt"
    shutil.copy(server.authority, trusted)
    file = server.kubeconfig_of("exchanged", {"token": AGENT}, **{"certificate-authority": str(trusted)})
    with Watcher(configured(file, node_name="n1", peers="off"), {}, "host") as watcher:
        wait_for(lambda: answered(watcher), "the first certificate's answers")
        server.server.kill()
        server.make_certificate()
        server.server.start()
        wait_for(lambda: all("not trusted" in reason for reason in reasons(watcher)), "nobody is believed", 40)
        assert watcher.known.pod(pod) is not None
        assert str(trusted) in reasons(watcher)[0]
        shutil.copy(server.authority, trusted)
        wait_for(lambda: answered(watcher), "the second certificate's answers", 60)


def ask(settings: Kubernetes) -> str:
    """What is answered to one question, or why there is no answer."""
    try:
        return str(json.loads(Api(Access(settings, {})).get("/api/v1/pods", {"limit": "1"}))["kind"])
    except ApiError as error:
        return error.reason


def configured(path: Path, **more: Any) -> Kubernetes:
    return Kubernetes(enabled=True, kubeconfig=str(path), **more)


def test_a_plug_in_that_gives_tokens(tmp_path, own):
    server, _ = own
    token = tmp_path / "token"
    token.write_text(AGENT)
    command = {
        "command": sys.executable,
        "args": ["-c", SAY_TOKEN, str(token)],
        "apiVersion": "client.authentication.k8s.io/v1",
    }
    settings = configured(server.kubeconfig_of("plugin", {"exec": command}))
    api = Api(Access(settings, {}))
    assert b'"PodList"' in api.get("/api/v1/pods", {"limit": "1"})
    token.write_text(ADMIN)
    assert b'"PodList"' in api.get("/api/v1/pods", {"limit": "1"})
    token.write_text("revoked")
    assert ask(settings) == "HTTP 401: Unauthorized"
    token.write_text("")
    assert "no token today" in ask(settings)


def test_a_plug_in_that_hangs_is_told(tmp_path, own, monkeypatch):
    server, _ = own
    monkeypatch.setattr(watcher_module, "STUCK_S", 0.5)
    ready = tmp_path / "ready"
    waiting = f"while [ ! -e {ready} ]; do sleep 0.1; done; exec {sys.executable} -c '{SAY_TOKEN}' {ready}"
    command = {"command": "sh", "args": ["-c", waiting], "apiVersion": "client.authentication.k8s.io/v1"}
    file = server.kubeconfig_of("hangs", {"exec": command})
    with Watcher(configured(file, node_name="n1", peers="off"), {}, "host") as watcher:
        wait_for(lambda: "still waiting for an answer about pods" in reasons(watcher), "its reason")
        assert not any(state.answered for state in watcher.states())
        (tmp_path / "token").write_text(AGENT)
        (tmp_path / "token").rename(ready)
        wait_for(lambda: answered(watcher), "its token")


def test_certificates_of_clients_and_plug_ins_that_give_them(tmp_path, own):
    server, _ = own
    pair = server.clients.sign("agent", "DNS:agent")
    user = {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}
    assert ask(configured(server.kubeconfig_of("certificate", user))) == "PodList"
    words = ["-c", SAY_CERTIFICATE, str(pair.certificate), str(pair.key)]
    command = {"command": sys.executable, "args": words, "apiVersion": "client.authentication.k8s.io/v1"}
    assert ask(configured(server.kubeconfig_of("exec-certificate", {"exec": command}))) == "PodList"
    stranger = server.clients.sign("nobody", "DNS:nobody")
    user = {"client-certificate": str(stranger.certificate), "client-key": str(stranger.key)}
    assert ask(configured(server.kubeconfig_of("stranger", user))).startswith("HTTP 403: pods is forbidden")


def test_a_file_with_the_token_is_read_again(tmp_path, own):
    server, _ = own
    token = tmp_path / "token"
    token.write_text("not yet")
    api = Api(Access(configured(server.kubeconfig_of("file", {"tokenFile": str(token)})), {}))
    with pytest.raises(ApiError, match="401"):
        api.get("/api/v1/pods", {"limit": "1"})
    token.write_text(AGENT)
    assert b'"PodList"' in api.get("/api/v1/pods", {"limit": "1"})


def test_whoever_is_not_believed_is_told_in_one_sentence(tmp_path, own):
    server, _ = own
    wrong = Authority(tmp_path).create().certificate
    said = ask(configured(server.kubeconfig_of("wrong", {"token": AGENT}, **{"certificate-authority": str(wrong)})))
    assert said == f"the server's certificate is not trusted: self-signed certificate; {wrong} must vouch for it"
    (tmp_path / "empty.pem").write_text("")
    for name, cluster, wanted in (
        ("nofile", {"certificate-authority": "/nowhere/ca.crt"}, "/nowhere/ca.crt"),
        ("nocert", {"certificate-authority": str(tmp_path / "empty.pem")}, ""),
        ("closed", {"server": "https://127.0.0.1:1"}, "Connection refused"),
        ("nobody", {"server": "https://api.invalid:6443"}, "not known"),
        ("nourl", {"server": "what is this"}, ""),
        ("http", {"server": f"http://127.0.0.1:{server.port}"}, "HTTP 400"),
    ):
        said = ask(configured(server.kubeconfig_of(name, {"token": AGENT}, **cluster)))
        assert wanted in said, (name, said)
        assert "\n" not in said
        assert " object at " not in said


@pytest.mark.parametrize(
    "content",
    ["", "[]", "text", "{", "a: [b", "5", '{"clusters": 5}', '{"current-context": "x"}', "clusters: [{}]\ncontexts: []\n",
     "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\nclusters: [{name: c, cluster: 5}]\nusers: []",
     'current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n'
     'clusters: [{name: c, cluster: {server: "https://127.0.0.1:1", certificate-authority-data: "###"}}]\nusers: []',
     'current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n'
     'clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]\nusers: [{name: u, user: {exec: {command: /nowhere}}}]',
     'current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n'
     'clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]\n'
     'users: [{name: u, user: {exec: {apiVersion: v1, command: /nowhere}}}]',
     'current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n'
     'clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]\n'
     'users: [{name: u, user: {auth-provider: {name: oidc, config: {id-token: "a.b.c"}}}}]'],
)  # fmt: skip
def test_a_kubeconfig_that_is_none(tmp_path, content):
    file = tmp_path / "kubeconfig"
    file.write_text(content)
    said = ask(configured(file))
    assert said
    assert "\n" not in said


def test_a_context_that_is_not_there(own):
    server, _ = own
    assert "elsewhere" in ask(configured(server.kubeconfig(), context="elsewhere"))
