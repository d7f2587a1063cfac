"""Endpoints as people write them."""

from __future__ import annotations

import pytest

from otelbpf.config import OtlpGrpc, OtlpHttp, Tls
from otelbpf.errors import ConfigError
from otelbpf.export.endpoint import grpc_endpoint, http_endpoints, read_certificates


@pytest.mark.parametrize(
    ("text", "insecure", "expected"),
    [
        ("http://collector:4317", False, ("collector", 4317, False)),
        ("https://collector:4317", True, ("collector", 4317, True)),
        ("collector:4317", False, ("collector", 4317, True)),
        ("collector:4317", True, ("collector", 4317, False)),
        ("collector", True, ("collector", 4317, False)),
        ("http://collector", False, ("collector", 4317, False)),
        ("127.0.0.1:1", True, ("127.0.0.1", 1, False)),
        ("[::1]:4317", True, ("::1", 4317, False)),
        ("http://[fd00::1]", True, ("fd00::1", 4317, False)),
        ("http://fd00::1:4318", False, ("fd00::1", 4318, False)),
        ("2001:db8:0:1:2:3:4:5:14317", True, ("2001:db8:0:1:2:3:4:5", 14317, False)),
        ("https://2001:db8:0:1:2:3:4:5/", True, ("2001:db8:0:1:2:3:4:5", 4317, True)),
        ("fd00::1", True, ("fd00::1", 4317, False)),
        ("http://collector/?from=http://a:b::c", False, ("collector", 4317, False)),
    ],
)
def test_grpc(text, insecure, expected):
    endpoint = grpc_endpoint("otlp_grpc", OtlpGrpc(endpoint=text, tls=Tls(insecure=insecure)))
    assert (endpoint.host, endpoint.port, endpoint.secure) == expected


@pytest.mark.parametrize(
    "text", ["ftp://collector", "http://", "collector:port", "collector:99999", "[::1", "unix:///x"]
)
def test_what_is_no_endpoint_is_one_sentence_with_its_key(text):
    with pytest.raises(ConfigError, match=r"^exporters\.otlp_grpc\.endpoint: "):
        grpc_endpoint("otlp_grpc", OtlpGrpc(endpoint=text))


def urls(**settings: str) -> dict[str, str]:
    return {signal: endpoint.url for signal, endpoint in http_endpoints("otlp_http", OtlpHttp(**settings)).items()}


@pytest.mark.parametrize(
    ("endpoint", "logs"),
    [
        ("http://collector:4318", "http://collector:4318/v1/logs"),
        ("http://collector:4318/", "http://collector:4318/v1/logs"),
        ("https://collector/otlp/", "https://collector:443/otlp/v1/logs"),
        ("http://collector", "http://collector:80/v1/logs"),
        ("collector", "https://collector:4318/v1/logs"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/logs"),
    ],
)
def test_paths_are_appended_to_the_endpoint(endpoint, logs):
    assert urls(endpoint=endpoint)["logs"] == logs


def test_an_endpoint_of_one_signal_is_taken_as_it_is():
    assert urls(endpoint="http://a:1", logs_endpoint="http://b:2/in?key=1") == {
        "logs": "http://b:2/in?key=1",
        "metrics": "http://a:1/v1/metrics",
        "traces": "http://a:1/v1/traces",
    }


def test_signals_without_an_endpoint_have_none():
    assert list(urls(logs_endpoint="http://b:2/in")) == ["logs"]


class TestFiles:
    def test_one_that_is_missing(self, tmp_path):
        with pytest.raises(
            ConfigError, match=r"^exporters\.a\.tls\.ca_file: cannot read .*: No such file or directory$"
        ):
            read_certificates("a", Tls(ca_file=str(tmp_path / "none")))

    def test_one_that_is_something_else(self, tmp_path):
        path = tmp_path / "text"
        path.write_text("hello")
        with pytest.raises(ConfigError, match=r"tls\.ca_file: .* holds no certificate in PEM form$"):
            read_certificates("a", Tls(ca_file=str(path)))

    def test_a_key_without_its_certificate(self, tmp_path):
        path = tmp_path / "key"
        path.write_text("key")
        with pytest.raises(ConfigError, match="cert_file and key_file go together; cert_file is missing"):
            read_certificates("a", Tls(key_file=str(path)))

    def test_a_pair_that_is_none(self, tmp_path):
        path = tmp_path / "text"
        path.write_text("hello")
        with pytest.raises(ConfigError, match="are not a certificate and its key"):
            read_certificates("a", Tls(cert_file=str(path), key_file=str(path)))
