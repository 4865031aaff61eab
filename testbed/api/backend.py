"""testinfra inside nodes and pods: a backend named ``testbed``.

Hosts are spelled ``testbed://TESTBED:TARGET``, a target being a node or a pod; the query chooses
its namespace and container::

    >>> import testinfra
    >>> testinfra.get_host("testbed://flannel:node1").interface("flannel.1").addresses
    ['10.244.0.0']
    >>> pod = testinfra.get_host("testbed://flannel:web?namespace=default&container=nginx")
    >>> pod.socket("tcp://0.0.0.0:80").is_listening
    True
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import testinfra.backend
from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

from testbed.target import Target

if TYPE_CHECKING:
    import docker

__all__ = ["TestbedBackend", "host_of", "register"]


def register() -> None:
    """Make ``testbed://`` known to testinfra."""
    testinfra.backend.BACKENDS["testbed"] = f"{__name__}.TestbedBackend"


def host_of(client: docker.DockerClient, testbed: str, target: Target, text: str) -> Host:
    """testinfra's host for a target that is known already; ``text`` is how people spell it."""
    backend = TestbedBackend(f"{testbed}:{text}")
    backend.place = client, target
    return Host(backend)


@cache
def _client() -> Any:
    """One connection for all hosts of a test run that are named by a URL."""
    from testbed.node import engine

    return engine.connect()


class TestbedBackend(BaseBackend):  # type: ignore[misc]  # it has annotations, but no py.typed
    """Runs testinfra's commands by an exec in a node, and from there in the pod."""

    __test__ = False
    NAME = "testbed"

    def __init__(
        self, name: str, *args: Any, namespace: str = "", container: str = "", **kwargs: Any
    ) -> None:
        self.testbed, _, self.target = name.partition(":")
        if namespace:
            self.target = f"{namespace}/{self.target}"
        if container:
            self.target = f"{self.target}:{container}"
        super().__init__(self.target, *args, **kwargs)

    @cached_property
    def place(self) -> tuple[Any, Target]:
        """The engine's client, and where commands run."""
        from testbed import existing, target

        client = _client()
        cluster = existing.cluster_of(client, existing.choose(client, self.testbed))
        return client, target.resolve(cluster, self.target)

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        """Run a shell command there; standard output and error are kept apart."""
        del kwargs  # the base class has them for other backends
        from testbed.node.container import run

        client, found = self.place
        text = self.get_command(command, *args)
        code, out, err = run(client, found.container, found.argv(["/bin/sh", "-c", text]))
        return self.result(code, self.encode(text), out, err)
