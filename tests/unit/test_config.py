"""Settings: what a file, `--set` and nothing at all give, and the sentence for each mistake."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import msgspec
import pytest
from msgspec import Struct, inspect
from ruamel.yaml import YAML

from otelbpf import config
from otelbpf.config import Config, Console, OtlpGrpc, OtlpHttp, Slow, Throttle
from otelbpf.config.render import template
from otelbpf.config.settings import EXPORTERS
from otelbpf.errors import ConfigError

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "config").glob("otelbpf.yaml")) + sorted((ROOT / "config" / "examples").glob("*.yaml"))


def read(text: str, **environ: str) -> Config:
    return config.loads(text.encode(), "f.yaml", environ)


def mistake(text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, **environ)
    return str(caught.value)


def test_nothing_gives_the_defaults_and_the_console() -> None:
    assert config.load(None, (), {}) == Config(exporters={"console": Console()})


def test_the_file_of_all_settings_equals_the_defaults() -> None:
    assert config.load(ROOT / "config" / "otelbpf.yaml", (), {}) == config.load(None, (), {})


def test_the_file_of_all_settings_has_every_setting() -> None:
    def paths(value: object, path: str) -> set[str]:
        if not isinstance(value, Struct):
            return {path}
        names = value.__struct_fields__
        return {found for name in names for found in paths(getattr(value, name), f"{path}.{name}")}

    def written(node: object, path: str) -> set[str]:
        if not isinstance(node, dict) or not node:
            return {path}
        return {found for key, value in node.items() for found in written(value, f"{path}.{key}")}

    tree = YAML(typ="safe").load(ROOT / "config" / "otelbpf.yaml")
    assert written(tree, "") == paths(Config(), "")


def test_the_exporters_shown_as_comments_are_the_defaults_too() -> None:
    commented = re.findall(r"^#  ( *[a-z_]+:.*)$", template(), re.MULTILINE)
    shown = read("exporters:\n" + "\n".join(f"  {line}" for line in commented))
    assert shown.exporters == {
        "otlp_grpc": OtlpGrpc(endpoint="collector:4317"),
        "otlp_http": OtlpHttp(endpoint="http://collector:4318"),
        "console": Console(),
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_that_we_ship_is_good_and_fits_the_schema(path: Path) -> None:
    config.load(path, (), {})
    jsonschema.validate(YAML(typ="safe").load(path), config.schema())


def test_the_schema_refuses_what_the_agent_refuses() -> None:
    schema = config.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for wrong in ({"metrics": {"intervall": "5s"}}, {"exporters": {"kafka": {}}}, {"logs": {"process": "on"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


@pytest.mark.parametrize(
    "content", ["", "\n", "# nothing\n", "---\n", "probes:\n", "probes: {dns_lookup: }\n", "exporters:\n"]
)
def test_what_is_left_empty_has_its_default(content: str) -> None:
    assert read(content) == config.load(None, (), {})


def test_every_kind_of_value_is_read() -> None:
    settings = read("""
probes: {tcp_connection: {ring_size: 3MB}, dns_lookup: {ports: [53, 5353], timeout: 1m, throttle: {rate: 7, burst: 2}}, process: {enabled: false, throttle: off}}
filters: {addresses: {include: [10.1.2.3/8, "::1"]}, cgroups: {exclude: [/system.slice/*]}}
attributes: {legacy: off}
logs: {tcp_connection: {slow: 100ms}, dns_lookup: failed, dns_server: off}
resource: {attributes: {a.b: x, n: 1, f: 1.5, t: true, l: [x, y]}}
exporters:
  otlp: {endpoint: "collector:4317", headers: {authorization: Bearer x}, sending_queue: {max_bytes: 64MiB}}
  otlphttp/second: {endpoint: "https://collector:4318"}
  console:
""")
    assert settings.probes.tcp_connection.ring_size == 4 * 2**20  # rounded up to a power of two
    assert settings.probes.dns_lookup.ports == (53, 5353)
    assert settings.probes.dns_lookup.timeout == 60
    assert not settings.probes.process.enabled
    assert settings.probes.process.throttle == "off"
    assert settings.probes.dns_lookup.throttle == Throttle(rate=7, burst=2)
    assert settings.filters.addresses.include == ("10.0.0.0/8", "::1/128")
    assert settings.attributes.legacy == "off"
    assert settings.logs.tcp_connection == Slow(slow=0.1)
    assert settings.logs.dns_lookup == "failed"
    assert settings.logs.dns_server == "off"
    assert settings.resource.attributes == {"a.b": "x", "n": 1, "f": 1.5, "t": True, "l": ["x", "y"]}
    assert list(settings.exporters) == ["otlp_grpc", "otlp_http/second", "console"]
    grpc = settings.exporters["otlp_grpc"]
    assert isinstance(grpc, OtlpGrpc)
    assert grpc.headers == {"authorization": "Bearer x"}
    assert grpc.sending_queue.max_bytes == 64 * 2**20


MISTAKES = {
    "unknown key": (
        "metrics:\n  intervall: 5s",
        "f.yaml:2: metrics.intervall: is not a setting; did you mean interval?",
    ),
    "unknown group": ("probs: {}", "f.yaml:1: probs: is not a setting; did you mean probes?"),
    "unknown exporter": (
        "exporters: {otlpgrpc: {}}",
        "f.yaml:1: exporters.otlpgrpc: is not an exporter; did you mean otlp_grpc?",
    ),
    "twice": ("logs: {}\nlogs: {}", "f.yaml:2: the key logs is given twice, first at f.yaml:1; keep one of them"),
    "twice, and other mistakes": (
        "logs: {}\nmetrics: {intervall: 1s}\nlogs: {}",
        "f.yaml:3: the key logs is given twice, first at f.yaml:1; keep one of them\n"
        "f.yaml:2: metrics.intervall: is not a setting; did you mean interval?",
    ),
    "of a collector": (
        "processors: {batch: {}}",
        "f.yaml:1: processors: is a setting of the collector; here `probes` say what is watched and `exporters` "
        "where it goes; remove it",
    ),
    "twice by an older name": (
        "exporters:\n  otlp: {endpoint: a}\n  otlp_grpc: {endpoint: b}",
        "f.yaml:3: exporters.otlp_grpc: is the same as otlp; name one of them otlp_grpc/other",
    ),
    "no unit": ("metrics: {interval: 15}", "f.yaml:1: metrics.interval: 15 has no unit; write 15s if you mean seconds"),
    "not a duration": (
        "metrics: {interval: soon}",
        'f.yaml:1: metrics.interval: "soon" is not a duration; write a number with a unit, such as 10s, 500ms or 1m30s',
    ),
    "not a size": (
        "probes: {process: {ring_size: 1XB}}",
        'f.yaml:1: probes.process.ring_size: "1XB" is not a size; write a number with a unit, such as 4MiB, 2MB or 512KiB',
    ),
    "out of range": ("metrics: {max_series: 0}", "f.yaml:1: metrics.max_series: 0 is out of range; give 1 to 10000000"),
    "duration out of range": (
        "metrics: {interval: 1ms}",
        'f.yaml:1: metrics.interval: "1ms" is out of range; give 1s to 1h',
    ),
    "size out of range": (
        "probes: {process: {ring_size: 1}}",
        "f.yaml:1: probes.process.ring_size: 1 is out of range; give 4KiB to 1GiB",
    ),
    "port": (
        "filters: {ports: {include: [70000]}}",
        "f.yaml:1: filters.ports.include[0]: 70000 is out of range; give 1 to 65535",
    ),
    "more ports than the kernel half takes": (
        f"filters: {{ports: {{exclude: {list(range(1, 514))}}}}}",
        "f.yaml:1: filters.ports.exclude: has 513 entries; give 0 to 512",
    ),
    "no port": ("probes: {dns_lookup: {ports: []}}", "f.yaml:1: probes.dns_lookup.ports: has 0 entries; give 1 to 16"),
    "not an address": (
        "filters: {addresses: {exclude: [10.0.0.0/33]}}",
        'f.yaml:1: filters.addresses.exclude[0]: "10.0.0.0/33" is not an address or CIDR; '
        "write it such as 10.0.0.0/8, 192.0.2.1 or fd00::/8",
    ),
    "yes is a word": (
        "probes: {process: {enabled: yes}}",
        'f.yaml:1: probes.process.enabled: "yes" is not true or false; write one of them',
    ),
    "on is a word": (
        "logs: {process: on}",
        'f.yaml:1: logs.process: "on" is not one of all, failed, off; write one of them',
    ),
    "a number for text": (
        "connection_id: {key: 5}",
        "f.yaml:1: connection_id.key: its value is not text; write it in quotes",
    ),
    "no value": ("shutdown_timeout:", "f.yaml:1: shutdown_timeout: has no value; give it one, or remove the key"),
    "a list for a map": ("metrics: [1]", "f.yaml:1: metrics: a list is not a map of settings; write its keys below it"),
    "a word for a list": (
        "filters: {cgroups: {include: /x}}",
        'f.yaml:1: filters.cgroups.include: "/x" is not a list; write it as [a, b]',
    ),
    "a list on top": ("- 1", "f.yaml:1: is not a map of settings; begin with a key such as `probes:`"),
    "a word on top": ("probes", "f.yaml:1: is not a map of settings; begin with a key such as `probes:`"),
    "a tag": ("probes: !x {}", "f.yaml:1: has the tag !x; write the value without it"),
    "an alias of itself": ("probes: &a {x: *a}", "f.yaml:1: holds itself through an alias; write the settings out"),
    "no endpoint": (
        "exporters: {otlp_grpc: {}}",
        "f.yaml:1: exporters.otlp_grpc.endpoint: is missing; give it a value",
    ),
    "no URL": (
        "exporters: {otlp_http: {}}",
        "f.yaml:1: exporters.otlp_http.endpoint: is missing; write a URL such as http://collector:4318",
    ),
    "a path for gRPC": (
        "exporters: {otlp_grpc: {endpoint: 'http://c:4318/v1/logs'}}",
        'f.yaml:1: exporters.otlp_grpc.endpoint: "http://c:4318/v1/logs" has a path, which an endpoint for gRPC cannot have; '
        "write host:port, or use the exporter otlp_http",
    ),
    "no scheme for HTTP": (
        "exporters: {otlp_http: {endpoint: 'c:4318'}}",
        'f.yaml:1: exporters.otlp_http.endpoint: "c:4318" is not a URL; write it such as http://collector:4318',
    ),
    "half a certificate": (
        "exporters: {otlp_grpc: {endpoint: c, tls: {cert_file: x}}}",
        "f.yaml:1: exporters.otlp_grpc.tls: has only one of cert_file and key_file; give key_file too",
    ),
    "a line in a header": (
        'exporters: {otlp_grpc: {endpoint: c, headers: {a: "x\\ny"}}}',
        "f.yaml:1: exporters.otlp_grpc.headers.a: has a value that no header can carry; write printable ASCII on one line",
    ),
    "no variable": (
        "connection_id: {key: '${env:GONE}'}",
        "f.yaml:1: the variable GONE is not set; set it, or give a default: ${env:GONE:-value}",
    ),
    "not a variable": (
        "connection_id: {key: 'a${file:x}'}",
        "f.yaml:1: ${file:x} names no variable; write ${env:NAME}, and $$ for a dollar sign",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_line_that_says_where_what_and_what_to_do(text: str, sentence: str) -> None:
    assert mistake(text) == sentence


def test_bad_yaml_is_told_at_its_line() -> None:
    assert mistake("probes:\n  process: [\n").startswith("f.yaml:3: is not YAML: ")


def test_several_mistakes_are_several_lines() -> None:
    assert [line.split(": ")[:2] for line in mistake("metrics: {a: 1}\nlogs: {b: 2}").splitlines()] == [
        ["f.yaml:1", "metrics.a"],
        ["f.yaml:2", "logs.b"],
    ]


def test_a_secret_is_never_told() -> None:
    for text in ("connection_id: {key: [hunter2]}", "exporters: {otlp: {endpoint: c, headers: {a: [hunter2]}}}"):
        assert "hunter2" not in mistake(text)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x7fELF\x00\x01", b"[" * 400, b"&a [" * 400, b"x" * (2**20 + 1)])
def test_what_is_not_a_settings_file_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^f\.yaml"):
        config.loads(content, "f.yaml")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone", Path("/dev/zero"), tmp_path / "gone\0"):
        with pytest.raises(ConfigError):
            config.load(path, (), {})


def test_aliases_share_a_value() -> None:
    settings = read("probes: {process: {ring_size: &ring 8MiB}, dns_lookup: {ring_size: *ring}}")
    assert settings.probes.process.ring_size == settings.probes.dns_lookup.ring_size == 8 * 2**20


def test_aliases_of_aliases_cannot_grow() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    assert len(mistake("\n".join(lines))) < 10_000


class TestVariables:
    def test_a_variable_has_the_type_that_the_setting_wants(self) -> None:
        text = """
metrics: {interval: "${env:T}", max_series: "${env:N}"}
probes: {process: {enabled: "${env:B}"}}
connection_id: {key: "${env:N}"}
"""
        settings = read(text, T="30s", N="0100", B="false")
        assert (settings.metrics.interval, settings.metrics.max_series) == (30, 100)
        assert not settings.probes.process.enabled
        assert settings.connection_id.key == "0100"

    def test_inside_text_with_defaults_and_dollar_signs(self) -> None:
        text = "resource: {attributes: {a: 'x-${env:A}-${env:B:-b}-$$-${env:C:-}', b: $$, c: 'a$$b', d: '$$${env:A}'}}"
        assert read(text, A="1").resource.attributes == {"a": "x-1-b-$-", "b": "$", "c": "a$b", "d": "$1"}

    @pytest.mark.parametrize(
        "value", ["{a: b}", "[", "'", "# x", "null", "*x", "${env:HOME}", "%", "a: b", " x", "true"]
    )
    def test_text_takes_a_variable_as_it_is(self, value: str) -> None:
        assert read("connection_id: {key: '${env:K}'}", K=value).connection_id.key == value

    def test_a_whole_group_may_come_from_a_variable(self) -> None:
        assert read("filters: {ports: {include: '${env:P}'}}", P="[1, 2]").filters.ports.include == (1, 2)

    def test_the_key_comes_from_its_variable_unless_the_file_has_one(self) -> None:
        assert read("", OTELBPF_CONNECTION_KEY="k: v").connection_id.key == "k: v"
        assert read("connection_id: {key: mine}", OTELBPF_CONNECTION_KEY="k").connection_id.key == "mine"


class TestOverrides:
    @pytest.mark.parametrize(
        ("assignment", "path", "value"),
        [
            ("probes.dns_lookup.timeout=2s", ("probes", "dns_lookup", "timeout"), 2.0),
            ("probes.dns_lookup.ports=[53, 54]", ("probes", "dns_lookup", "ports"), (53, 54)),
            ("probes.process={enabled: false}", ("probes", "process", "enabled"), False),
            ("shutdown_timeout=0", ("shutdown_timeout",), 0.0),
            ("logs.process={slow: 1s}", ("logs", "process"), Slow(slow=1)),
            ("logs.process.slow=1s", ("logs", "process"), Slow(slow=1)),
            ("connection_id.key=", ("connection_id", "key"), ""),
            ("connection_id.key=a=b", ("connection_id", "key"), "a=b"),
            (
                "resource.attributes.deployment.environment.name=x",
                ("resource", "attributes"),
                {"deployment.environment.name": "x"},
            ),
            ("attributes.legacy=off", ("attributes", "legacy"), "off"),
        ],
    )
    def test_one_key(self, assignment: str, path: tuple[str, ...], value: object) -> None:
        found: object = config.load(None, [assignment], {})
        for name in path:
            found = getattr(found, name)
        assert found == value

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("exporters.otlp_grpc.endpoint", "otlp_grpc"),
            ("exporters.otlp.endpoint", "otlp_grpc"),
            ("exporters.otlp_grpc/eu.west-1.endpoint", "otlp_grpc/eu.west-1"),
        ],
    )
    def test_an_exporter(self, path: str, name: str) -> None:
        assert config.load(None, [f"{path}=c:4317"], {}).exporters == {name: OtlpGrpc(endpoint="c:4317")}

    def test_a_header_may_have_dots(self) -> None:
        overrides = ["exporters.otlp_grpc.endpoint=c", "exporters.otlp_grpc.headers.x.y=v"]
        exporter = config.load(None, overrides, {}).exporters["otlp_grpc"]
        assert isinstance(exporter, OtlpGrpc)
        assert exporter.headers == {"x.y": "v"}

    def test_a_whole_exporter(self) -> None:
        assert config.load(None, ["exporters.console={}"], {}).exporters == {"console": Console()}

    def test_the_last_one_counts(self, tmp_path: Path) -> None:
        file = tmp_path / "f.yaml"
        file.write_text("metrics: {interval: 1s, max_series: 7}")
        settings = config.load(file, ["metrics.interval=2s", "metrics.interval=3s"], {})
        assert (settings.metrics.interval, settings.metrics.max_series) == (3, 7)

    @pytest.mark.parametrize(
        "assignment", ["", "=", "metrics.interval", "=5s", ".=1", "metrics.=1", "metrics.interval=1 s", "a=["]
    )
    def test_what_is_none_is_refused(self, assignment: str) -> None:
        with pytest.raises(ConfigError, match=r"^--set"):
            config.load(None, [assignment], {})

    def test_the_file_stays_as_it_was_for_others(self) -> None:
        text = "probes: {process: &p {enabled: true}, dns_lookup: *p}"
        file_only = read(text)
        assert file_only.probes.process.enabled


class TestRendering:
    def test_what_is_printed_can_be_read_again(self) -> None:
        text = """
resource: {attributes: {"odd key: #": "va\\nlue ${env:X}", "": y, n: 1.5, l: ["a, b", "true"], "1": "1"}}
filters: {cgroups: {include: ["*[", "a, b", "{x}"]}}
exporters: {otlp_grpc/a.b: {endpoint: "c:1"}, console: {}}
metrics: {interval: 1m30s}
""".replace('"": y, ', "").replace("${env:X}", "$${env:X}")
        settings = read(text)
        assert read(config.render(settings)) == settings

    def test_secrets_are_hidden(self) -> None:
        text = "connection_id: {key: hunter2}\nexporters: {otlp_grpc: {endpoint: c, headers: {authorization: hunter2}}}"
        printed = config.render(read(text))
        assert "hunter2" not in printed
        assert printed.count("***") == 2
        assert "authorization" in printed


def test_every_setting_has_a_meaning() -> None:
    def walk(kind: type, path: str) -> None:
        for field in msgspec.structs.fields(kind):
            info = inspect.type_info(field.type)
            notes = info.extra_json_schema if isinstance(info, inspect.Metadata) else None
            assert notes, f"{path}.{field.name} has no description"
            inner = info.type if isinstance(info, inspect.Metadata) else info
            if isinstance(inner, inspect.StructType):
                walk(inner.cls, f"{path}.{field.name}")

    for kind in (Config, *EXPORTERS.values()):
        walk(kind, kind.__name__)
