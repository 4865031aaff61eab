"""A capture as tests use it: nothing while it runs, its packets afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from testbed.errors import UsageError
from testbed.packets import capturefile
from testbed.packets.decoder import VXLAN_PORTS
from testbed.packets.packet import Packet
from testbed.packets.selection import Packets
from testbed.topology.model import Cluster
from testbed.verify import capture, oracle

if TYPE_CHECKING:
    from testbed.api.place import Interface, Place
    from testbed.api.testbed import Testbed

__all__ = ["Captured", "StillCapturingError", "captured"]


class StillCapturingError(RuntimeError):
    """The packets of a capture were asked for before its end."""


class Captured(Packets):
    """The packets of ``with testbed.capture(…) as packets``, complete when the block has ended."""

    __slots__ = ("_why", "pcapng")

    pcapng: bytes
    """The capture as a file, for Wireshark and tshark."""

    def __init__(self) -> None:
        """There is nothing yet: the attributes of :class:`Packets` are made by :meth:`end`."""
        self._why = (
            "the capture still runs: its packets are complete when the `with` block has ended"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself looks for
            raise AttributeError(name)
        __tracebackhide__ = True  # pytest shows the line of the test
        raise StillCapturingError(self._why)

    def __repr__(self) -> str:
        return "<a capture without packets>" if self._why else super().__repr__()

    def broken_off(self, error: BaseException) -> None:
        """Say from now on that there are no packets, and why."""
        self._why = (
            f"{type(error).__name__} ended the block of this capture, so that its packets were not "
            "read. If the error is expected, catch it inside of the block."
        )

    def end(
        self,
        pcapng: bytes,
        packets: Iterable[Packet],
        interfaces: Iterable[str],
        dropped: int,
    ) -> None:
        """Become what was captured."""
        self.pcapng = pcapng
        self._why = ""
        Packets.__init__(self, packets, tuple(interfaces), dropped=dropped)


@contextmanager
def captured(
    testbed: Testbed, where: Iterable[Interface | Place | str], expression: str
) -> Iterator[Captured]:
    """Capture for the block; see :meth:`testbed.api.testbed.Testbed.capture`.

    Raises:
        UsageError: an interface is not there, or tcpdump refuses the expression.
        NodeError: a node cannot be asked, or not everything of it came.
    """
    found = Captured()
    chosen = _sources(testbed, list(where))
    with capture.capturing(testbed.client, testbed.cluster, chosen, expression) as recording:
        try:
            yield found
        except BaseException as error:
            found.broken_off(error)
            raise
        recording.stop()
        file = recording.pcapng()
        packets = capturefile.read(file, _vxlan_ports(testbed.cluster))
        names = [each.name for each in recording.interfaces]
        found.end(file, packets, names, recording.dropped)


def _sources(testbed: Testbed, where: list[Interface | Place | str]) -> tuple[capture.Source, ...]:
    """Interfaces are where they say that they are; words are looked up, all at once."""
    from testbed.api.place import Interface, Place

    found: list[capture.Source] = []
    words: list[str] = []
    for each in where:
        interface = each[capture.UPLINK] if isinstance(each, Place) else each
        if isinstance(interface, Interface):
            device = interface.device
            found.append(capture.Source(str(interface), interface.node, device, interface.pod))
        elif isinstance(interface, str):
            words.append(interface)
        else:
            raise UsageError(
                f"{each!r} cannot be captured: give interfaces, nodes, pods, or words such as "
                "'node1:flannel.1'"
            )
    if words or not where:
        found += capture.sources(testbed.cluster, testbed.snapshot.observed, words)
    return tuple(dict.fromkeys(found))


def _vxlan_ports(cluster: Cluster) -> frozenset[int]:
    ways = oracle.encapsulations(cluster)
    return VXLAN_PORTS | {way.port for way in ways if isinstance(way, oracle.Vxlan)}
