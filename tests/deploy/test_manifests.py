"""deploy/kubernetes at a real API server: taken as they are, and allowing what is needed and nothing more."""

from __future__ import annotations

import re

import pytest

from otelbpf.config import loads
from otelbpf.export.endpoint import grpc_endpoint
from tests.deploy.objects import MANIFESTS, container, of_kind, parse, read, refusal

FILES = sorted(path for path in MANIFESTS.glob("*.yaml") if path.name != "kustomization.yaml")
ACCOUNT = "system:serviceaccount:otelbpf:otelbpf"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_server_takes_it(api, path):
    assert refusal(api, path.read_text()) == ""


@pytest.mark.parametrize(
    ("right", "wrong"), [("hostPID:", "hostPIDD:"), ("port: 13134", 'port: "a name that is too long"')]
)
def test_the_server_would_refuse_a_mistake(api, right, wrong):
    text = (MANIFESTS / "daemonset.yaml").read_text()
    assert refusal(api, text.replace(right, wrong))


def test_kustomize_gives_every_file(api):
    done = api.kubectl("kustomize", str(MANIFESTS))
    expected = sorted((one["kind"], one["metadata"]["name"]) for path in FILES for one in read(path))
    assert sorted((one["kind"], one["metadata"]["name"]) for one in parse(done.stdout)) == expected
    assert refusal(api, done.stdout) == ""


def test_install_again_and_uninstall(api):
    """All of it for real; a second time changes nothing."""
    expected = sorted(f"{one['kind']}/{one['metadata']['name']}".lower() for path in FILES for one in read(path))
    for _ in range(2):
        done = api.kubectl("apply", "--server-side", "-k", str(MANIFESTS), "-o", "name")
        assert done.returncode == 0, done.stderr
        assert sorted(re.sub(r"\.[a-z.0-9]*/", "/", line) for line in done.stdout.split()) == expected
    generation = "jsonpath={.metadata.generation}"
    assert api.kubectl("-n", "otelbpf", "get", "daemonset", "otelbpf", "-o", generation).stdout == "1"
    own = ("daemonset/otelbpf", "configmap/otelbpf")  # the namespace and the role are those of the other tests
    done = api.kubectl("-n", "otelbpf", "delete", "--wait=false", *own)
    assert done.returncode == 0, done.stderr
    done = api.kubectl("delete", "priorityclass/otelbpf")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_the_agent_takes_the_configuration(address):
    text = of_kind(read(MANIFESTS / "configmap.yaml"), "ConfigMap")["data"]["otelbpf.yaml"]
    config = loads(text.encode(), environ={"NODE_IP": address})
    exporter = config.exporters["otlp_grpc"]
    endpoint = grpc_endpoint("otlp_grpc", exporter)
    assert (endpoint.host, endpoint.port, endpoint.secure) == (address, 4317, False)
    assert exporter.spool.directory == "/var/lib/otelbpf/spool"


def test_probes_ask_where_the_agent_answers():
    agent = container(read(MANIFESTS / "daemonset.yaml"))
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        get = agent[probe]["httpGet"]
        assert f"{get['host']}:{get['port']}" == loads(b"").health.endpoint
        assert get["path"] == path


@pytest.mark.parametrize("verb", ["list", "watch"])
@pytest.mark.parametrize("resource", ["pods", "services", "nodes", "endpointslices.discovery.k8s.io"])
def test_the_role_lets_it_look(api, verb, resource):
    assert can(api, verb, resource)


@pytest.mark.parametrize("resource", ["pods", "nodes"])
def test_the_role_lets_it_find_out_which_node_it_is_on(api, resource):
    assert can(api, "get", resource)


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("get", "services"), ("get", "endpointslices.discovery.k8s.io"),
        ("get", "secrets"), ("list", "secrets"), ("get", "configmaps"), ("create", "pods"), ("delete", "pods"),
        ("get", "pods/log"), ("create", "pods/exec"), ("patch", "nodes"), ("get", "nodes/proxy"), ("*", "*"),
    ],
)  # fmt: skip
def test_the_role_lets_it_do_nothing_else(api, verb, resource):
    assert not can(api, verb, resource)


def can(api, verb, resource):
    resource, _, part = resource.partition("/")
    words = ["--subresource", part] if part else []
    done = api.kubectl("auth", "can-i", verb, resource, *words, "--as", ACCOUNT, "--all-namespaces")
    assert done.stdout.strip() in ("yes", "no"), done.stderr
    return done.stdout.strip() == "yes"


def test_nothing_is_privileged_and_nothing_but_the_spool_can_be_written():
    agent = container(read(MANIFESTS / "daemonset.yaml"))
    security = agent["securityContext"]
    assert security["privileged"] is security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"]["drop"] == ["ALL"]
    assert "SYS_ADMIN" not in security["capabilities"]["add"]
    assert [one["mountPath"] for one in agent["volumeMounts"] if not one.get("readOnly")] == ["/var/lib/otelbpf"]
