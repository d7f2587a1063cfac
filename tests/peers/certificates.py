"""Certificates of a day, made by openssl: an authority, a server, a client, and a server nobody vouches for."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Pair:
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """Signs certificates, in *directory*."""

    directory: Path

    @property
    def certificate(self) -> Path:
        return self.directory / "authority.pem"

    def create(self) -> Authority:
        _openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
            "-subj", "/CN=otelbpf test authority", "-keyout", str(self.directory / "authority.key"),
            "-out", str(self.certificate),
        )  # fmt: skip
        return self

    def sign(self, name: str, alternatives: str, days: int = 1) -> Pair:
        """A certificate for *name*, valid for *alternatives* such as ``DNS:a,IP:127.0.0.1``; expired when *days* < 0."""
        pair = Pair(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        request, extensions = self.directory / f"{name}.csr", self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternatives}\n")
        _openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
            "-keyout", str(pair.key), "-out", str(request),
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey",
            str(self.directory / "authority.key"), "-CAcreateserial", "-days", str(days), "-extfile", str(extensions),
            "-out", str(pair.certificate),
        )  # fmt: skip
        return pair


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
