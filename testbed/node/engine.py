"""Reaching the Docker engine, fast, or saying exactly what to do about it.

The engine is found as every Docker client finds it: ``DOCKER_HOST``, ``DOCKER_TLS_VERIFY`` and
``DOCKER_CERT_PATH``, else (SDK 7.2) the current context, else the local socket. The SDK's own
version negotiation asks ``/version``, for which the engine runs ``runc`` and ``containerd`` (6 ms);
the unversioned ``/_ping`` answers in 1 ms and tells the API version in a header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from testbed.errors import MissingCapabilityError
from testbed.node import host

if TYPE_CHECKING:
    import docker

__all__ = ["MINIMUM_API", "NoEngineError", "connect", "endpoint", "is_local", "unreachable"]

MINIMUM_API = (1, 41)
"""Docker 20.10: the first that lets a container have a cgroup namespace of its own."""
_PING_SECONDS = 5
_CALL_SECONDS = 120
_CONNECTIONS = 32
"""Kept open: nodes are worked on in parallel."""
_DEFAULT_SOCKETS = ("unix:///var/run/docker.sock", "unix:///run/docker.sock")


class NoEngineError(MissingCapabilityError):
    """Nothing answers; ``startable`` when it is this machine's own engine, as setup can start."""

    def __init__(self, message: str, *, startable: bool) -> None:
        super().__init__(message)
        self.startable = startable


def connect() -> docker.DockerClient:
    """Return a client of the engine after one ping, speaking the engine's own API version.

    Raises:
        NoEngineError: nothing answers.
        MissingCapabilityError: we may not speak to the engine, or it is too old.
    """
    import docker
    from docker.errors import DockerException

    try:
        version = _ping()
        return docker.DockerClient.from_env(
            version=version, timeout=_CALL_SECONDS, max_pool_size=_CONNECTIONS
        )
    except DockerException as error:  # wrong variables: the engine was not even asked
        raise MissingCapabilityError(
            f"the Docker engine's address is wrong: {error}\n"
            "Correct DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH (or unset them for this "
            "machine's own engine)."
        ) from error


def endpoint(client: docker.DockerClient) -> str:
    """The engine's address, as ``DOCKER_HOST`` would spell it."""
    adapter = client.api.adapters.get("http+docker://")
    path = getattr(adapter, "socket_path", None)
    return f"unix://{path}" if path else str(client.api.base_url)


def is_local(client: docker.DockerClient) -> bool:
    """Whether the engine runs on this machine, as far as its address tells."""
    return endpoint(client).startswith("unix://")


def _ping() -> str:
    """The engine's API version, ``1.41``."""
    import docker
    from requests.exceptions import RequestException

    oldest = ".".join(map(str, MINIMUM_API))
    client = docker.DockerClient.from_env(version=oldest, timeout=_PING_SECONDS)
    address = endpoint(client)
    try:
        answer = client.api.get(f"{client.api.base_url}/_ping", timeout=_PING_SECONDS)
    except (RequestException, OSError) as error:
        raise unreachable(address, error) from error
    finally:
        client.close()
    version = answer.headers.get("Api-Version", "")
    if not re.fullmatch(r"\d+\.\d+", version):
        raise MissingCapabilityError(
            f"what answers at {address} is not a Docker engine "
            f"(HTTP {answer.status_code}: {answer.text.strip()[:200] or 'nothing'}).\n"
            "Correct DOCKER_HOST, or unset it for this machine's own engine."
        )
    if tuple(map(int, version.split("."))) < MINIMUM_API:
        raise MissingCapabilityError(
            f"the Docker engine at {address} speaks API {version}, and testbed needs {oldest}.\n"
            "Upgrade it to Docker 20.10 or newer (Debian 12's docker.io is)."
        )
    return version


def unreachable(address: str, error: BaseException) -> MissingCapabilityError:
    """What to tell about an ``error`` in reaching the engine at ``address``."""
    cause = next(_system_errors(error), None)
    if isinstance(cause, PermissionError):
        user = host.user()
        return MissingCapabilityError(
            f"user {user} may not use the Docker engine at {address}: permission denied.\n"
            f"Run `sudo usermod -aG docker {user}` and log in again, or run testbed with sudo."
        )
    words = (cause.strerror if cause else None) or str(error) or type(error).__name__
    if "timed out" in str(error):
        words = f"no answer within {_PING_SECONDS} s"
    startable = address in _DEFAULT_SOCKETS
    remedy = (
        "Run `testbed setup`: it installs and starts one."
        if startable
        else "Start that engine, or unset DOCKER_HOST to use this machine's own."
    )
    return NoEngineError(
        f"no Docker engine answers at {address}: {words}.\n{remedy}", startable=startable
    )


def _system_errors(error: BaseException) -> Iterator[OSError]:
    """The operating system's own errors inside what requests and urllib3 wrap around them."""
    seen: list[BaseException] = [error]
    for one in seen:
        if isinstance(one, OSError) and one.errno is not None:
            yield one
        nested = [*one.args, one.__cause__, one.__context__, getattr(one, "reason", None)]
        seen.extend(n for n in nested if isinstance(n, BaseException) and n not in seen)
