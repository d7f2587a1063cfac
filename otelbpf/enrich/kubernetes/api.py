"""The API server: found, believed and spoken to as the `kubernetes` package is configured, in raw requests.

The package is imported here and only when there is a cluster: it takes 22 MB and 0.2 s. Its objects are never used.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec
import urllib3
from urllib3.exceptions import HTTPError

from otelbpf.enrich.kubernetes import objects
from otelbpf.enrich.kubernetes.stream import Stream
from otelbpf.errors import OtelbpfError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelbpf.config import Kubernetes

CONNECT_S = 5.0
ANSWER_S = 15.0
BODY_LIMIT_BYTES = 256 << 20
REFUSAL_LIMIT_BYTES = 1 << 16
SERVICE_HOST = "KUBERNETES_SERVICE_HOST"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
OBJECT_AT = re.compile(r" object at 0x[0-9a-f]+")


class ApiError(OtelbpfError):
    """A request that was not answered as it should: *status* is HTTP's, 0 when there was no answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def there_is_one(settings: Kubernetes, environ: Mapping[str, str]) -> bool:
    """Whether `enabled: auto` means yes: in a pod, or with a kubeconfig."""
    if settings.enabled != "auto":
        return settings.enabled is True
    if settings.kubeconfig or environ.get("KUBECONFIG"):
        return True
    return bool(environ.get(SERVICE_HOST)) and (SERVICE_ACCOUNT / "token").exists()


class Api:
    """Requests to the API server. Nothing is read or connected before the first one."""

    def __init__(self, settings: Kubernetes, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ
        self._configuration: Any = None
        self._pool: urllib3.PoolManager | None = None

    @property
    def host(self) -> str:
        """Where the server is; empty before the first request."""
        return "" if self._configuration is None else str(self._configuration.host)

    def stream(self, path: str, query: Mapping[str, str]) -> Stream:
        """An answer that goes on. Raises ApiError."""
        return Stream(self._asked(path, query))

    def get(self, path: str, query: Mapping[str, str]) -> bytes:
        """A whole answer. Raises ApiError."""
        response = self._asked(path, query)
        try:
            body: bytes = response.read(BODY_LIMIT_BYTES)
        except (HTTPError, OSError) as error:
            raise ApiError(0, _sentence(error)) from error
        finally:
            response.release_conn()
        return body

    def forget(self) -> None:
        """Reads configuration, tokens and certificates again at the next request: they may have changed."""
        if self._pool is not None:
            self._pool.clear()
        self._pool = self._configuration = None

    def _asked(self, path: str, query: Mapping[str, str]) -> Any:
        pool = self._connected()
        url = f"{self._configuration.host}{path}?{urlencode(query)}"
        try:
            response = pool.request(
                "GET",
                url,
                headers={"Accept": "application/json", "User-Agent": "otelbpf", **self._authorization()},
                preload_content=False,
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=CONNECT_S, read=ANSWER_S),
            )
        except (HTTPError, OSError) as error:
            self.forget()
            raise ApiError(0, _sentence(error)) from error
        if response.status == 200:
            return response
        refused = _refusal(response)
        if response.status == 401:  # the token was exchanged, or its time is over
            self.forget()
        raise ApiError(response.status, refused)

    def _connected(self) -> urllib3.PoolManager:
        if self._pool is None:
            from kubernetes.client import Configuration  # noqa: PLC0415 - only where there is a cluster
            from kubernetes.client.rest import RESTClientObject  # noqa: PLC0415
            from kubernetes.config import ConfigException  # noqa: PLC0415

            configuration = type.__call__(Configuration)
            try:
                self._configure(configuration)
                pool: urllib3.PoolManager = RESTClientObject(configuration).pool_manager
            except (ConfigException, OSError, ValueError, TypeError, KeyError) as error:
                raise ApiError(0, f"no way to the API server: {_sentence(error)}") from error
            self._configuration, self._pool = configuration, pool
        return self._pool

    def _configure(self, configuration: Any) -> None:
        from kubernetes import config  # noqa: PLC0415

        file = self._settings.kubeconfig
        if not file and self._environ.get(SERVICE_HOST) and (SERVICE_ACCOUNT / "token").exists():
            config.load_incluster_config(client_configuration=configuration)
            return
        config.load_kube_config(
            config_file=file or self._environ.get("KUBECONFIG") or None,
            context=self._settings.context or None,
            client_configuration=configuration,
        )

    def _authorization(self) -> dict[str, str]:
        """Asked for each request: the package reads a service account's token again when it is a minute old."""
        try:
            settings = self._configuration.auth_settings()
        except (OSError, ValueError) as error:
            raise ApiError(0, f"no token: {_sentence(error)}") from error
        except Exception as error:
            if type(error).__module__.startswith("kubernetes."):
                raise ApiError(0, f"no token: {_sentence(error)}") from error
            raise
        return {one["key"]: one["value"] for one in settings.values() if one.get("in") == "header" and one.get("value")}


def _refusal(response: Any) -> str:
    """Why the server will not, in its own words."""
    try:
        body = response.read(REFUSAL_LIMIT_BYTES)
        said = msgspec.json.decode(body, type=objects.Refusal)
        words = said.message or said.reason
    except (HTTPError, OSError, msgspec.DecodeError):
        words = ""
    finally:
        response.close()
    return f"HTTP {response.status}: {words[:300] or 'no reason given'}"


def _sentence(error: BaseException) -> str:
    """The innermost cause, on one line."""
    inner = getattr(error, "reason", None) or error
    text = OBJECT_AT.sub("", " ".join(str(inner).split())) or type(inner).__name__
    return text.rpartition(": ")[2][:300] if isinstance(inner, HTTPError) else text[:300]
