"""Real multi-node Kubernetes pod networking in Docker, without Kubernetes.

::

    compose/flannel.yaml ─load─▶ Cluster ─plan─▶ NodeSpec per node ─▶ Docker node containers
    (+ Kubernetes manifests)     pure data       pure functions        │ boot, sync from the spec
                                                                       ▼
          Report ◀─verify─ expected (oracle, pure), observed (probes, pcaps) ◀─ in-node agent

What tests and scripts need can be imported from here; it is loaded when it is first asked for, so
that ``import testbed`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.api.packets import StillCapturingError
    from testbed.api.ping import NoReplyError
    from testbed.api.place import CommandError
    from testbed.api.testbed import Testbed
    from testbed.errors import NodeError, UsageError
    from testbed.packets.control import NoControlError
    from testbed.packets.encapsulation import IPIP, PLAIN, VXLAN, WIREGUARD
    from testbed.packets.packet import Packet
    from testbed.packets.selection import Packets, Verdict

__all__ = [
    "IPIP",
    "PLAIN",
    "VXLAN",
    "WIREGUARD",
    "CommandError",
    "NoControlError",
    "NoReplyError",
    "NodeError",
    "Packet",
    "Packets",
    "StillCapturingError",
    "Testbed",
    "UsageError",
    "Verdict",
]

_HOMES = {
    "Testbed": "api.testbed",
    "IPIP": "packets.encapsulation",
    "PLAIN": "packets.encapsulation",
    "VXLAN": "packets.encapsulation",
    "WIREGUARD": "packets.encapsulation",
    "CommandError": "api.place",
    "NoControlError": "packets.control",
    "NoReplyError": "api.ping",
    "NodeError": "errors",
    "StillCapturingError": "api.packets",
    "UsageError": "errors",
    "Packet": "packets.packet",
    "Packets": "packets.selection",
    "Verdict": "packets.selection",
}
"""Public name → the module that has it."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
