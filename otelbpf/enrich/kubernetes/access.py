"""How the API server is reached and who we are to it: as the `kubernetes` package is configured.

The package is imported here and only when there is a cluster: it takes 22 MB and 0.2 s. It finds the server, reads
kubeconfigs, runs the plug-ins that they name, and reads a service account's token again when it is a minute old. Its
objects and its requests are not used.
"""

from __future__ import annotations

import gc
import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from urllib3.exceptions import HTTPError

from otelbpf.enrich.kubernetes.presence import SERVICE_ACCOUNT, SERVICE_HOST
from otelbpf.enrich.kubernetes.refusals import NO_ANSWER, ApiError, sentence

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import urllib3

    from otelbpf.config import Kubernetes


class Access:
    """Nothing is read before the first question; `forget` makes that everything is read again at the next one."""

    def __init__(
        self, settings: Kubernetes, environ: Mapping[str, str], service_account: Path = SERVICE_ACCOUNT
    ) -> None:
        """*service_account* is the directory with `token`, `ca.crt` and `namespace`."""
        self._settings = settings
        self._environ = environ
        self._service_account = service_account
        self._configuration: Any = None
        self._pool: urllib3.PoolManager | None = None

    @property
    def host(self) -> str:
        """Where the server is; empty while nothing was asked."""
        return "" if self._configuration is None else str(self._configuration.host)

    @property
    def authority(self) -> str | None:
        """The file of the certificates that are trusted; None: the system's."""
        return None if self._configuration is None else self._configuration.ssl_ca_cert

    def pool(self) -> urllib3.PoolManager:
        """Makes connections to the server. Raises ApiError that says what is wrong with the configuration."""
        if self._pool is None:
            from kubernetes.client import Configuration  # noqa: PLC0415 - only where there is a cluster
            from kubernetes.client.rest import RESTClientObject  # noqa: PLC0415

            gc.freeze()  # what an import makes stays: a full collection that walks it keeps every thread for 30 ms
            configuration = type.__call__(Configuration)
            try:
                with _overheard() as said:
                    self._configure(configuration)
                if said and not (configuration.api_key or configuration.cert_file):
                    raise ApiError(NO_ANSWER, f"no credentials: {sentence(Exception(said[-1]))}")
                pool: urllib3.PoolManager = RESTClientObject(configuration).pool_manager
            except _failures() as error:
                raise ApiError(NO_ANSWER, f"cannot reach the API server: {sentence(error)}") from error
            self._configuration, self._pool = configuration, pool
        return self._pool

    def authorization(self) -> dict[str, str]:
        """Says who we are, for one request; empty for whoever has a certificate. Raises ApiError."""
        self.pool()
        try:
            with _overheard():
                settings = self._configuration.auth_settings()
        except _failures() as error:
            self.forget()
            raise ApiError(NO_ANSWER, f"no token: {sentence(error)}") from error
        found = {one["key"]: (one.get("value") or "").strip() for one in settings.values() if one.get("in") == "header"}
        if any(not value.isascii() or not value.isprintable() for value in found.values()):
            self.forget()
            raise ApiError(NO_ANSWER, "the token is more than one line of text")
        return {key: value for key, value in found.items() if value}

    def namespace(self) -> str:
        """The namespace of our own pod; empty when it is not known."""
        try:
            return self._environ.get("POD_NAMESPACE") or (self._service_account / "namespace").read_text().strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def forget(self) -> None:
        """Lets configuration, tokens and certificates be read again: they may have changed."""
        if self._pool is not None:
            self._pool.clear()
        self._pool = self._configuration = None

    def _configure(self, configuration: Any) -> None:
        from kubernetes import config  # noqa: PLC0415
        from kubernetes.config.incluster_config import InClusterConfigLoader  # noqa: PLC0415

        file, account = self._settings.kubeconfig, self._service_account
        other = file or self._environ.get("KUBECONFIG")
        if not file and self._environ.get(SERVICE_HOST) and ((account / "token").exists() or not other):
            found = InClusterConfigLoader(str(account / "token"), str(account / "ca.crt"), environ=self._environ)
            found.load_and_set(configuration)
            return
        config.load_kube_config(
            config_file=other or None,
            context=self._settings.context or None,
            client_configuration=configuration,
        )


class _Overheard(logging.Handler):
    """Keeps what one thread logs; what others do goes where it goes without this handler."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.said.append(record.getMessage())
        elif len(logging.root.handlers) == 1 and logging.lastResort is not None:
            logging.lastResort.handle(record)


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """What the package logs meanwhile: a plug-in that fails is logged, and then nobody is asked for a name."""
    handler = _Overheard()
    logging.root.addHandler(handler)
    try:
        yield handler.said
    finally:
        logging.root.removeHandler(handler)


def _failures() -> tuple[type[Exception], ...]:
    """What the package lets through of a kubeconfig that is none, and of plug-ins that fail."""
    from kubernetes.client.exceptions import OpenApiException  # noqa: PLC0415 - only where there is a cluster
    from kubernetes.config import ConfigException  # noqa: PLC0415
    from oauthlib.oauth2 import OAuth2Error  # noqa: PLC0415
    from yaml import YAMLError  # noqa: PLC0415

    of_package = (ConfigException, OpenApiException, OAuth2Error, YAMLError, HTTPError)
    return (*of_package, OSError, ValueError, TypeError, LookupError, AttributeError)
