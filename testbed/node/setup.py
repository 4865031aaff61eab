"""Everything that a machine needs before ``testbed up``: engine, kernel modules, node image.

Idempotent: what is there is kept, and a second run only asks. Two at once wait for each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.dataplane.features import KERNEL_FLAGS, Features
from testbed.node import daemon as dockerd
from testbed.node import features, image
from testbed.node.engine import NoEngineError, connect, is_local
from testbed.node.host import Host
from testbed.node.lock import held
from testbed.node.progress import Progress

if TYPE_CHECKING:
    import docker

__all__ = ["load_modules", "setup"]

_LOCK_SECONDS = 900.0
_MODULES = {
    "br_netfilter": "br_netfilter",
    "vxlan": "vxlan",
    "ip_tables": "iptables_legacy",
    "tun": "tun",
    "overlay": "overlay_in_container",
}
"""Modules that the kernel does not load by itself when a container asks, and what they bring."""


def setup(report: Progress, host: Host | None = None, daemon: dockerd.Daemon | None = None) -> None:
    """Make this machine ready, reporting each step.

    Raises:
        MissingCapabilityError: testbed may not or cannot do it; the message lists what to run.
        NodeError: the node image could not be built.
    """
    host = host or Host()
    client = _engine(host, daemon or dockerd.Daemon(), report)
    version = client.api.api_version
    report("engine", f"answers with API {version}")
    failures = load_modules(host, report) if is_local(client) else {}
    reference = image.ensure(client, report)
    report("image", f"{reference} is ready")
    found = features.detect(client, reference)
    _tell(found, failures, report)


def _engine(host: Host, daemon: dockerd.Daemon, report: Progress) -> docker.DockerClient:
    try:
        return connect()
    except NoEngineError as error:
        if not error.startable:
            raise

    def waiting(pid: int) -> None:
        report("engine", f"process {pid or 'unknown'} is setting it up; waiting")

    with held("setup/engine", waiting, _LOCK_SECONDS):
        if not dockerd.answers(daemon.socket):
            dockerd.provide(host, daemon, report)
    return connect()


def load_modules(host: Host, report: Progress) -> dict[str, str]:
    """Load what is not there; return modprobe's words for what it could not."""
    has_modules = host.path(f"/lib/modules/{host.kernel_release}").is_dir()
    absent = [name for name in _MODULES if not host.path(f"/sys/module/{name}").exists()]
    if not absent or not has_modules or not host.is_root:
        return {}
    failures: dict[str, str] = {}
    for name in absent:
        done = host.run(["modprobe", "-q", name])
        if done.code:
            failures[name] = done.output.strip() or f"modprobe {name} failed"
        else:
            report("kernel", f"loaded {name}")
    return failures


def _tell(found: Features, failures: dict[str, str], report: Progress) -> None:
    for module, words in failures.items():
        feature = _MODULES[module]
        if feature not in found.available:  # otherwise it is built in
            report("kernel", f"{feature} is missing: {words}")
    missing = [name for name in KERNEL_FLAGS if name not in found.available]
    privileges = "privileged" if found.privileged else "with the capability set"
    lacks = f"; without {', '.join(missing)}" if missing else ""
    report("features", f"kernel {found.kernel_release}, nodes run {privileges}{lacks}")
