"""deploy/helm/otelbpf: equal to the manifests as it comes, strict about its values, taken by a real API server."""

from __future__ import annotations

import copy
import json
import re

import pytest
from ruamel.yaml import YAML

from otelbpf.config import loads
from tests.deploy.objects import CHART, DEPLOY, MANIFESTS, container, of_kind, parse, read, refusal

ENVIRONMENT = {"NODE_IP": "192.0.2.1", "OTLP_HEADER_0": "token"}
HELMS_OWN = ("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart")


def template(api, *words, values=None):
    given = None if values is None else json.dumps(values)
    files = [] if given is None else ["-f", "-"]
    return api.run("helm", "template", "otelbpf", str(CHART), "-n", "otelbpf", *files, *words, given=given)


def objects(api, *words, values=None):
    done = template(api, *words, values=values)
    assert done.returncode == 0, done.stderr
    return parse(done.stdout)


def settings(rendered):
    text = of_kind(rendered, "ConfigMap")["data"]["otelbpf.yaml"]
    return loads(text.encode(), environ=ENVIRONMENT)


def test_lint(api):
    done = api.run("helm", "lint", str(CHART), "--strict")
    assert done.returncode == 0, done.stdout


def test_it_equals_the_manifests(api):
    by_hand = [one for path in MANIFESTS.glob("*.yaml") for one in read(path)]
    wanted = {key(one): essence(one) for one in by_hand if one["kind"] not in ("Namespace", "Kustomization")}
    assert {key(one): essence(one) for one in objects(api)} == wanted


def key(one):
    return one["kind"], one["metadata"]["name"], one["metadata"].get("namespace")


def essence(one):
    """The object without what says only by what it was made."""
    left = copy.deepcopy(one)
    spots = [left["metadata"]]
    if one["kind"] == "DaemonSet":
        spots.append(left["spec"]["template"]["metadata"])
        left["spec"]["selector"]["matchLabels"].pop("app.kubernetes.io/instance", None)
        container([left]).setdefault("imagePullPolicy", "IfNotPresent")  # the API server's default for a tag
    for metadata in spots:
        for label in HELMS_OWN:
            metadata["labels"].pop(label, None)
        metadata.pop("annotations", None)
    if one["kind"] == "ConfigMap":
        left["data"] = YAML(typ="safe").load(one["data"]["otelbpf.yaml"])
    return left


VALUES = {
    "http": {"otlp": {"protocol": "http", "endpoint": "https://back.end:4318", "compression": "gzip"}},
    "insecure": {"otlp": {"endpoint": "collector:4317", "tls": {"insecure": True}}},
    "few probes": {"probes": {"tcpConnection": False, "process": False}},
    "no peers": {"kubernetes": {"peers": "off", "clusterName": "c1", "labels": ["app", "team.*"]}},
    "no spool": {"spool": {"enabled": False}},
    "a small spool": {"spool": {"hostPath": "/data/otelbpf", "maxSize": "64MiB"}},
    "a key": {"connectionId": {"key": "0123"}},
    "an image by digest": {"image": {"repository": "registry.example/otelbpf", "digest": "sha256:" + "0" * 64}},
    "another port": {"health": {"port": 13199}},
    "any setting": {"config": {"logs": {"process": "off"}, "exporters": {"otlp_grpc": {"timeout": "9s"}}}},
    "odd names": {
        "spool": {"hostPath": "/data/my disk: 1"}, "security": {"seLinuxType": "spc: t"},
        "otlp": {"headers": {"X-Tenant": {"secret": "back-end", "key": "123"}}}, "config": None,
        "resourceAttributes": {"a": "it's: #1", "b": 12345678, "c": True, "d": "two\nlines"},
    },
    "older clusters": {"security": {"appArmorProfile": "", "capabilities": ["SYS_ADMIN"], "seLinuxType": "spc_t"}},
    "accounts of others": {
        "serviceAccount": {"create": False, "name": "mine"}, "rbac": {"create": False},
        "priorityClass": {"create": False, "name": "system-node-critical"}, "mounts": {"tracing": False},
    },
    "pods dressed": {"podLabels": {"team": "a"}, "podAnnotations": {"a/b": "c"}, "imagePullSecrets": [{"name": "r"}]},
}  # fmt: skip


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_server_and_agent_take_what_values_make(api, values):
    done = template(api, values=values)
    assert refusal(api, done.stdout) == "", done.stderr
    settings(parse(done.stdout))


def test_the_spool(api):
    rendered = objects(api, values=VALUES["a small spool"])
    volumes = of_kind(rendered, "DaemonSet")["spec"]["template"]["spec"]["volumes"]
    paths = [one["hostPath"]["path"] for one in volumes if one["name"] == "state"]
    (mount,) = (one for one in container(rendered)["volumeMounts"] if one["name"] == "state")
    spool = settings(rendered).exporters["otlp_grpc"].spool
    assert paths == ["/data/otelbpf"]
    assert spool.directory.startswith(f"{mount['mountPath']}/")
    assert spool.max_size == 64 << 20
    without = objects(api, values=VALUES["no spool"])
    assert settings(without).exporters["otlp_grpc"].spool.directory == ""
    assert "/var/lib/otelbpf" not in json.dumps(without)


def test_probes(api):
    probes = settings(objects(api, values=VALUES["few probes"])).probes
    assert (probes.tcp_connection.enabled, probes.dns_lookup.enabled, probes.process.enabled) == (False, True, False)


def test_http(api):
    (name,) = settings(objects(api, values=VALUES["http"])).exporters
    assert name == "otlp_http"


def test_config_lies_over_values(api):
    config = settings(objects(api, values=VALUES["any setting"]))
    assert config.exporters["otlp_grpc"].timeout == 9
    assert config.exporters["otlp_grpc"].endpoint == "http://192.0.2.1:4317"
    assert config.logs.process == "off"


@pytest.mark.parametrize(("peers", "slices"), [("auto", True), ("endpoints", True), ("pods", False), ("off", False)])
def test_endpoint_slices_are_read_only_where_they_name_peers(api, peers, slices):
    chosen = {"kubernetes": {"peers": peers}}
    for values in (chosen, {"kubernetes": {"peers": "pods"}, "config": chosen}):
        rules = of_kind(objects(api, values=values), "ClusterRole")["rules"]
        assert ("endpointslices" in [name for rule in rules for name in rule["resources"]]) == slices


def test_the_port_of_the_probes_is_the_agents(api):
    rendered = objects(api, values=VALUES["another port"])
    assert settings(rendered).health.endpoint == "127.0.0.1:13199"
    assert {container(rendered)[f"{kind}Probe"]["httpGet"]["port"] for kind in ("liveness", "readiness")} == {13199}


def test_the_key_is_in_a_secret_and_nowhere_else(api):
    rendered = objects(api, values={"connectionId": {"key": "only-here"}})
    assert of_kind(rendered, "Secret")["stringData"] == {"key": "only-here"}
    assert "only-here" not in json.dumps([one for one in rendered if one["kind"] != "Secret"])
    reference = next(one for one in container(rendered)["env"] if one["name"] == "OTELBPF_CONNECTION_KEY")
    assert reference["valueFrom"]["secretKeyRef"]["name"] == of_kind(rendered, "Secret")["metadata"]["name"]


def test_a_changed_configuration_rolls_out(api):
    def checksum(values):
        daemon_set = of_kind(objects(api, values=values), "DaemonSet")
        return daemon_set["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum({"legacyNames": True}) != checksum({"legacyNames": False})


def test_a_changed_configuration_need_not_roll_out(api):
    def template(values):
        daemon_set = of_kind(objects(api, values={"rolloutOnChange": False} | values), "DaemonSet")
        return daemon_set["spec"]["template"]

    assert template({"legacyNames": True}) == template({"legacyNames": False})
    assert "--watch" in template({})["spec"]["containers"][0]["args"]


def test_the_example_with_tls(api):
    rendered = objects(api, "-f", str(DEPLOY / "examples" / "values-gateway-tls.yaml"))
    config = settings(rendered)
    exporter = config.exporters["otlp_grpc"]
    assert (exporter.tls.ca_file, exporter.tls.cert_file) == ("/etc/otelbpf-tls/ca.crt", "/etc/otelbpf-tls/tls.crt")
    assert exporter.headers == {"Authorization": "token"}
    assert (config.attributes.legacy, config.kubernetes.cluster_name) == ("off", "production-1")
    mounts = {one["name"]: one["mountPath"] for one in container(rendered)["volumeMounts"]}
    assert mounts["tls"] == "/etc/otelbpf-tls"
    assert refusal(api, template(api, "-f", str(DEPLOY / "examples" / "values-gateway-tls.yaml")).stdout) == ""


@pytest.mark.parametrize(
    "values",
    [
        {"otpl": {"endpoint": "collector:4317"}},
        {"otlp": {"protocol": "tcp"}},
        {"otlp": {"endpoint": ""}},
        {"otlp": {"endpoint": 4317}},
        {"otlp": {"tls": {"secret": "tls", "cert": "tls.crt"}}},
        {"otlp": {"tls": {"secret": "tls", "key": "tls.key"}}},
        {"otlp": {"tls": {"cert": "tls.crt", "key": "tls.key"}}},
        {"config": {"health": {"endpoint": "127.0.0.1:13199"}}},
        {"podLabels": {"app.kubernetes.io/name": "mine"}},
        {"podAnnotations": {"checksum/config": "mine"}},
        {"spool": {"hostPath": "otelbpf"}},
        {"spool": {"maxSize": "1 gigabyte"}},
        {"otlp": {"headers": {"Authorization": "a token in the open"}}},
        {"probes": {"tcpConnection": "yes"}},
        {"probes": {"tcp_connection": False}},
        {"legacyNames": "dup"},
        {"health": {"port": 70000}},
        {"kubernetes": {"peers": False}},
        {"security": {"capabilities": ["CAP_BPF"]}},
        {"image": {"digest": "latest"}},
        {"updateStrategy": {"maxUnavailable": "10"}},
        {"priorityClass": {"value": 2000000000}},
    ],
    ids=json.dumps,
)
def test_the_schema_refuses_it(api, values):
    done = template(api, values=values)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


def test_the_schema_knows_every_value():
    values = YAML(typ="safe").load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}
    for name, group in values.items():
        known = schema["properties"][name].get("properties")
        if known is not None:
            assert set(group) == set(known), name


def test_every_value_is_used():
    used = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    for name in YAML(typ="safe").load((CHART / "values.yaml").read_text()):
        assert re.search(rf"\.Values\.{name}\b", used), name


def test_install_upgrade_uninstall(api):
    flags = ("-n", "chart-test", "--timeout", "60s")
    done = api.run("helm", "install", "first-otelbpf", str(CHART), "--create-namespace", *flags)
    assert done.returncode == 0, done.stderr
    assert "rollout status daemonset/first-otelbpf" in done.stdout
    done = api.run("helm", "upgrade", "first-otelbpf", str(CHART), "--set", "legacyNames=false", *flags)
    assert done.returncode == 0, done.stderr
    done = api.run("helm", "uninstall", "first-otelbpf", *flags)
    assert done.returncode == 0, done.stderr
    left = api.kubectl("get", "daemonset,configmap,clusterrole,priorityclass", "-A", "-o", "name").stdout
    assert "first-otelbpf" not in left
