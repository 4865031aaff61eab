"""What works on this machine and engine, feature by feature, and what to do about the rest.

Data only: the command line draws it. Without an engine it says what can be known without one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from testbed.dataplane.features import KERNEL_FLAGS, Features
from testbed.errors import TestbedError
from testbed.node import features, image
from testbed.node.engine import endpoint, is_local
from testbed.node.host import Host
from testbed.node.verdicts import Verdict, verdicts

if TYPE_CHECKING:
    import docker

__all__ = ["Diagnosis", "Engine", "Image", "Tool", "Verdict", "examine"]

_TOOLS = {
    "docker": ("--version",),
    "tshark": ("--version",),
    "docker-compose": ("version", "--short"),
}
"""Programs on the host that are good to have, and how each tells its version."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine, as it describes itself."""

    endpoint: str
    version: str
    api_version: str
    cgroup_version: str
    cgroup_driver: str
    storage_driver: str
    runtime: str
    architecture: str
    operating_system: str


@dataclass(frozen=True, slots=True)
class Image:
    """The node image that this version of testbed uses."""

    reference: str
    present: bool
    size: int = 0
    """Bytes."""
    created: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program on the host; testbed runs without it."""

    name: str
    path: str
    """Empty: it is not installed."""
    version: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that ``testbed doctor`` shows."""

    problem: str
    """Why nodes cannot be started at all; empty if they can."""
    engine: Engine | None
    image: Image | None
    privileges: str
    """``privileged``, ``capabilities``, or empty: not known."""
    kernel_release: str
    kernel: Mapping[str, bool]
    """By the names of :data:`testbed.dataplane.features.KERNEL_FLAGS`; empty: not known."""
    reasons: Mapping[str, str]
    """For what is missing: the tool's or the engine's own words."""
    iptables: Mapping[str, str]
    """``host``: the backend of the host's command; ``node``: those that work in nodes."""
    tools: tuple[Tool, ...]
    verdicts: tuple[Verdict, ...] = field(default_factory=tuple)

    @property
    def ok(self) -> bool:
        """Whether ``testbed up flannel`` works here."""
        return not self.problem and Verdict("flannel vxlan", "ok") in self.verdicts

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as JSON values, with stable keys."""
        return {"ok": self.ok, **asdict(self)}


def examine(
    client: docker.DockerClient | None, host: Host | None = None, problem: str = ""
) -> Diagnosis:
    """Examine this machine and, with ``client``, its engine; asks the kernel anew (0.5 s).

    ``problem`` is why there is no client: the message that ``connect`` raised.
    """
    host = host or Host()
    engine = _engine(client) if client else None
    node_image, found = None, None
    try:
        node_image = _image(client)
        if client and node_image.present:
            found = features.detect(client, node_image.reference, refresh=True)
    except TestbedError as error:
        problem = str(error)
    problem = problem or _problem(engine, node_image)
    return Diagnosis(
        problem=problem,
        engine=engine,
        image=node_image,
        privileges=_privileges(found),
        kernel_release=found.kernel_release if found else _release(client, host),
        kernel={name: getattr(found, name) for name in KERNEL_FLAGS} if found else {},
        reasons=dict(found.reasons) if found else {},
        iptables={"host": _host_iptables(host), "node": _node_iptables(found)},
        tools=tuple(_tool(host, name, options) for name, options in _TOOLS.items()),
        verdicts=verdicts(found, problem, has_modules=_has_modules(client, host)),
    )


def _engine(client: docker.DockerClient) -> Engine:
    info: dict[str, Any] = client.api.info()
    return Engine(
        endpoint=endpoint(client),
        version=str(info.get("ServerVersion", "")),
        api_version=str(client.api.api_version),
        cgroup_version=str(info.get("CgroupVersion", "1")),
        cgroup_driver=str(info.get("CgroupDriver", "")),
        storage_driver=str(info.get("Driver", "")),
        runtime=str(info.get("DefaultRuntime", "")),
        architecture=str(info.get("Architecture", "")),
        operating_system=str(info.get("OperatingSystem", "")),
    )


def _image(client: docker.DockerClient | None) -> Image:
    name = image.reference()
    built = image.find(client) if client else None
    return Image(name, True, built.size, built.created) if built else Image(name, present=False)


def _problem(engine: Engine | None, node_image: Image | None) -> str:
    if engine is None:
        return "no Docker engine answers.\nRun `testbed setup`."
    if node_image is None or not node_image.present:
        return "the node image is not built.\nRun `testbed setup`."
    return ""


def _privileges(found: Features | None) -> str:
    if found is None:
        return ""
    return "privileged" if found.privileged else "capabilities"


def _release(client: docker.DockerClient | None, host: Host) -> str:
    if client is None:
        return host.kernel_release
    return str(client.api.info().get("KernelVersion", ""))


def _has_modules(client: docker.DockerClient | None, host: Host) -> bool | None:
    """Whether modules of the running kernel are installed; ``None``: on another machine."""
    if client is not None and not is_local(client):
        return None
    return host.path(f"/lib/modules/{host.kernel_release}").is_dir()


def _host_iptables(host: Host) -> str:
    """``nf_tables``, ``legacy`` or empty, as ``iptables --version`` says in brackets."""
    if host.which("iptables") is None:
        return ""
    answer = host.run(["iptables", "--version"]).output
    backend = re.search(r"\((nf_tables|legacy)\)", answer)
    return backend[1] if backend else "legacy"


def _node_iptables(found: Features | None) -> str:
    works = {
        "nf_tables": found is not None and found.iptables_nft,
        "legacy": found is not None and found.iptables_legacy,
    }
    return ", ".join(name for name, here in works.items() if here)


def _tool(host: Host, name: str, options: tuple[str, ...]) -> Tool:
    path = host.which(name)
    if path is None:
        return Tool(name, "", "")
    number = re.search(r"\d+\.\d+(\.\d+)?", host.run([path, *options]).output)
    return Tool(name, path, number[0] if number else "")
