"""The standard variables: what they mean where the file names no exporter."""

from __future__ import annotations

import pytest

from otelbpf import config
from otelbpf.config import Console, OtlpGrpc, OtlpHttp, Tls
from otelbpf.errors import ConfigError

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def exporters(**environ: str) -> dict[str, OtlpGrpc | OtlpHttp | Console]:
    return config.load(None, (), environ).exporters


def test_an_endpoint_means_grpc() -> None:
    assert exporters(OTEL_EXPORTER_OTLP_ENDPOINT="http://c:4317") == {"otlp_grpc": OtlpGrpc(endpoint="http://c:4317")}


def test_all_of_them_together() -> None:
    made = exporters(
        OTEL_EXPORTER_OTLP_ENDPOINT="https://c:4318",
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_HEADERS="Authorization=Bearer%20x, a = b=c ,",
        OTEL_EXPORTER_OTLP_CERTIFICATE="/ca",
        OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE="/cert",
        OTEL_EXPORTER_OTLP_CLIENT_KEY="/key",
        OTEL_EXPORTER_OTLP_INSECURE="TRUE",
        OTEL_EXPORTER_OTLP_TIMEOUT="2.5",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
    )
    assert made == {
        "otlp_http": OtlpHttp(
            endpoint="https://c:4318",
            headers={"Authorization": "Bearer x", "a": "b=c"},
            tls=Tls(insecure=True, ca_file="/ca", cert_file="/cert", key_file="/key"),
            timeout=2.5,
            compression="gzip",
        )
    }


def test_a_signal_with_its_own_endpoint() -> None:
    made = exporters(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://c:4317",
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT="http://l:3100/otlp/v1/logs",
        OTEL_EXPORTER_OTLP_LOGS_PROTOCOL="http/protobuf",
    )
    assert made == {
        "otlp_http/logs": OtlpHttp(logs_endpoint="http://l:3100/otlp/v1/logs", signals=("logs",)),
        "otlp_grpc/metrics_traces": OtlpGrpc(endpoint="http://c:4317", signals=("metrics", "traces")),
    }


def test_only_one_signal_has_an_endpoint() -> None:
    assert exporters(OTEL_EXPORTER_OTLP_METRICS_ENDPOINT="c:4317") == {
        "otlp_grpc": OtlpGrpc(endpoint="c:4317", signals=("metrics",))
    }


@pytest.mark.parametrize("endpoint", ["", "  "])
def test_an_empty_variable_is_no_variable(endpoint: str) -> None:
    assert exporters(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) == {"console": Console()}


def test_the_file_counts_where_it_names_an_exporter() -> None:
    environ = {ENDPOINT: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "nonsense"}
    assert config.loads(b"exporters: {console: {}}", "f", environ).exporters == {"console": Console()}
    assert config.load(None, ["exporters.console={}"], environ).exporters == {"console": Console()}


def test_resource_attributes_without_what_describes_the_agent() -> None:
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=x,deployment.environment.name=a%2Cb,n=1"}
    assert config.load(None, (), environ).resource.attributes == {"deployment.environment.name": "a,b", "n": "1"}
    file = b"resource: {attributes: {deployment.environment.name: mine}}"
    assert config.loads(file, "f", environ).resource.attributes["deployment.environment.name"] == "mine"


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        (
            {ENDPOINT: "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            'OTEL_EXPORTER_OTLP_PROTOCOL: "http/json" is not supported; set it to grpc or http/protobuf',
        ),
        (
            {ENDPOINT: "http://c", "OTEL_EXPORTER_OTLP_HEADERS": "secret"},
            "OTEL_EXPORTER_OTLP_HEADERS: pair 1 is not key=value; write it such as key1=value1,key2=value2",
        ),
        (
            {ENDPOINT: "http://c", "OTEL_EXPORTER_OTLP_TIMEOUT": "10000"},
            'OTEL_EXPORTER_OTLP_TIMEOUT: exporters.otlp_grpc.timeout: "10000s" is out of range; give 100ms to 10m',
        ),
        (
            {ENDPOINT: "http://c", "OTEL_EXPORTER_OTLP_INSECURE": "1"},
            'OTEL_EXPORTER_OTLP_INSECURE: exporters.otlp_grpc.tls.insecure: "1" is not true or false; write one of them',
        ),
        (
            {ENDPOINT: "ftp://c"},
            f'{ENDPOINT}: exporters.otlp_grpc.endpoint: "ftp://c" has a scheme that is not supported; '
            "write host:port, http://host:port or https://host:port",
        ),
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "x"},
            "OTEL_RESOURCE_ATTRIBUTES: pair 1 is not key=value; write it such as key1=value1,key2=value2",
        ),
    ],
)
def test_a_mistake_names_its_variable(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(None, (), environ)
    assert str(caught.value) == sentence
