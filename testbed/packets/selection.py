"""Captured packets that tests select from and make assertions about.

``packets.between(a, b).on(node1.uplink)`` narrows a capture down, criterion by criterion; its truth
is whether anything is left. That nothing is left proves something only where the same capture has a
positive control: some packet that all criteria but one kind let through. Without one,
:class:`NoControlError` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

from testbed.packets import explanations
from testbed.packets.control import Criterion, NoControlError, Recorded, demand, described
from testbed.packets.encapsulation import PLAIN, WIREGUARD, Encapsulation
from testbed.packets.endpoints import Ends, is_uplink
from testbed.packets.packet import ICMP, ICMPV6, TCP, UDP, Packet
from testbed.packets.text import table

__all__ = ["NoControlError", "Packets", "Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a question about packets; true or false, with the table that shows why."""

    question: str
    ok: bool
    explanation: str
    judged: Packets | None = None
    """What it is a verdict on, if only packets that were seen can decide it."""

    def __bool__(self) -> bool:
        """Whether it is so.

        Raises:
            NoControlError: nothing was there to be judged, and nothing shows that it would have
                been captured: neither yes nor no is proven.
        """
        __tracebackhide__ = True  # pytest shows the line of the test
        explanations.note(lambda: self.explanation)
        if self.judged is not None and not self.judged._packets:
            if not self.judged._capture.uplinks:
                raise NoControlError(
                    f"{self.question}? No uplink was captured: capture nodes' eth0"
                )
            demand(self.judged._capture, self.judged._criteria)
        return self.ok

    def __repr__(self) -> str:
        return f"<{self.question}: {'yes' if self.ok else 'no'}>"


class Packets(Sequence[Packet]):
    """Packets of one capture, in the order of time; true if there are any."""

    __slots__ = ("_capture", "_criteria", "_packets")

    def __init__(
        self,
        packets: Iterable[Packet],
        interfaces: Collection[str] = (),
        *,
        uplinks: Collection[str] | None = None,
        dropped: int = 0,
    ) -> None:
        """A whole capture.

        Args:
            packets: in the order of time.
            interfaces: where it was captured, ``node1/eth0``; by default where packets were seen.
            uplinks: those of the interfaces where the underlay is seen; by default nodes' ``eth``.
            dropped: frames that the kernel could not hand to the capture.
        """
        seen = tuple(packets)
        where = tuple(interfaces) or tuple(dict.fromkeys(each.interface for each in seen))
        known = frozenset(uplinks) if uplinks is not None else frozenset(filter(is_uplink, where))
        self._packets = seen
        self._capture = Recorded(seen, where, known, dropped)
        self._criteria: tuple[Criterion, ...] = ()

    def __len__(self) -> int:
        explanations.note(self.table)
        return len(self._packets)

    @overload
    def __getitem__(self, index: int) -> Packet: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Packet, ...]: ...
    def __getitem__(self, index: int | slice) -> Packet | tuple[Packet, ...]:
        explanations.note(self.table)
        return self._packets[index]

    def __iter__(self) -> Iterator[Packet]:
        explanations.note(self.table)
        return iter(self._packets)

    def __bool__(self) -> bool:
        """Whether there are any.

        Raises:
            NoControlError: there are none, and nothing shows that they would have been captured.
        """
        __tracebackhide__ = True  # pytest shows the line of the test
        explanations.note(self.table)
        if not self._packets:
            demand(self._capture, self._criteria)
        return bool(self._packets)

    def __repr__(self) -> str:
        seen, all_ = len(self._packets), len(self._capture.packets)
        return f"<{seen} packets{described(self._criteria)} of {all_} captured>"

    def on(self, interface: object) -> Packets:
        """Those seen at one interface, which must be one that was captured.

        Raises:
            ValueError: it was not captured.
        """
        name = str(interface)
        if name not in self._capture.interfaces:
            there = ", ".join(self._capture.interfaces)
            raise ValueError(f"{name} was not captured; captured were {there}")
        return self._narrowed(
            Criterion(f"on {name}", lambda packet: packet.interface == name, interface=True)
        )

    def between(self, one: object, other: object) -> Packets:
        """Those that one endpoint sent to the other, or back, whatever carried them.

        An endpoint is a node or pod of the testbed, or an address.
        """
        ends = Ends.of(one, other)
        return self._narrowed(
            Criterion(f"between {one} and {other}", lambda packet: ends.way(packet) != 0, ends=ends)
        )

    def sent(self, source: object, destination: object) -> Packets:
        """As :meth:`between`, but only one way."""
        ends = Ends.of(source, destination)
        return self._narrowed(
            Criterion(
                f"from {source} to {destination}", lambda packet: ends.way(packet) > 0, ends=ends
            )
        )

    def tcp(self, port: int | None = None) -> Packets:
        """TCP, from or to ``port`` if given, a number."""
        return self._transport("TCP", TCP, port)

    def udp(self, port: int | None = None) -> Packets:
        """UDP of the endpoints, from or to ``port`` if given; VXLAN's own is not theirs."""
        return self._transport("UDP", UDP, port)

    def icmp(self, kind: int | None = None) -> Packets:
        """ICMP or ICMPv6, of one type if given: 8 is an echo request, 0 its reply."""
        _number(kind)

        def admits(packet: Packet) -> bool:
            inner = packet.innermost
            return inner.protocol in (ICMP, ICMPV6) and kind in (None, inner.icmp_type)

        return self._narrowed(Criterion("ICMP" if kind is None else f"ICMP type {kind}", admits))

    def arp(self) -> Packets:
        """ARP questions and answers."""
        return self._narrowed(Criterion("ARP", lambda each: each.innermost.arp is not None))

    def containing(self, payload: bytes) -> Packets:
        """Those whose own payload contains these bytes, such as a probe's marker."""
        return self._narrowed(
            Criterion(f"containing {payload!r}", lambda each: payload in each.innermost.payload)
        )

    def where(self, admits: Callable[[Packet], bool], words: str = "as asked") -> Packets:
        """Those of which a function of the packet, as it was captured, is true."""
        return self._narrowed(Criterion(words, admits))

    def encapsulated_in(
        self, kind: Encapsulation, outer: tuple[object, object] | None = None
    ) -> Verdict:
        """Whether these packets cross the underlay so, and at least one does.

        Judged where the underlay is seen: on nodes' uplinks. A VXLAN device or ``tunl0`` shows what
        is inside.

        Args:
            kind: ``VXLAN(vni=1, port=8472)``, ``IPIP()``, ``WIREGUARD()``.
            outer: the nodes of the outer header. The first sends what goes from the first endpoint
                of :meth:`between` or :meth:`sent` to the second, and the second what comes back.
        """
        uplinks = self._capture.uplinks
        there = Criterion(
            "on an uplink", lambda packet: packet.interface in uplinks, interface=True
        )
        seen = self._narrowed(there)
        judged = seen._packets
        if isinstance(kind, WIREGUARD):
            return self._encrypted(kind, judged, outer)
        carried = self._carried(outer)
        reasons = [kind.mismatch(each) or carried(each) for each in judged]
        where = ", ".join(sorted(uplinks)) or "no uplink was captured"
        problem = "" if judged else f"none of them was seen on an uplink ({where})"
        if not problem and any(reasons):
            problem = f"{sum(map(bool, reasons))} of {len(judged)} on uplinks are not so"
        verdict = self._verdict(f"encapsulated in {kind}", problem, judged, reasons)
        return replace(verdict, judged=seen)

    def plain(self) -> Verdict:
        """Whether these packets cross the underlay as they are, and at least one does."""
        return self.encapsulated_in(PLAIN)

    def table(self) -> str:
        """The packets, one line each, the first of many; of an empty selection, its capture."""
        if self._packets or not self._criteria:
            return f"{self!r}\n{table(self._packets)}"
        whole = self._capture.packets
        return f"no packet{described(self._criteria)}; captured were {len(whole)}:\n{table(whole)}"

    def _transport(self, name: str, protocol: int, port: int | None) -> Packets:
        _number(port)

        def admits(packet: Packet) -> bool:
            inner = packet.innermost
            return inner.protocol == protocol and (
                port is None or port in (inner.source_port, inner.destination_port)
            )

        return self._narrowed(Criterion(name if port is None else f"{name} port {port}", admits))

    def _narrowed(self, criterion: Criterion) -> Packets:
        found = object.__new__(Packets)
        found._packets = tuple(each for each in self._packets if criterion.admits(each))
        found._capture = self._capture
        found._criteria = (*self._criteria, criterion)
        return found

    def _carried(self, nodes: tuple[object, object] | None) -> Callable[[Packet], str]:
        """A function that says why outer addresses are not those of the nodes; empty: they are.

        The first node sends what goes from the selection's first endpoint to its second.
        """
        if nodes is None:
            return lambda _: ""
        carriers = Ends.of(*nodes)
        asked = [each.ends for each in self._criteria if each.ends]

        def problem(packet: Packet) -> str:
            way = carriers.outer_way(packet)
            if way == 0 or any(each.way(packet) not in (0, way) for each in asked):
                return (
                    f"outer {packet.source} > {packet.destination}, not {nodes[0]} and {nodes[1]}"
                )
            return ""

        return problem

    def _encrypted(
        self, kind: WIREGUARD, readable: Sequence[Packet], outer: tuple[object, object] | None
    ) -> Verdict:
        """Nothing to be read on the uplinks, and encrypted packets there, both ways."""
        carried = self._carried(outer)
        carriers = [
            each
            for each in self._capture.packets
            if each.interface in self._capture.uplinks
            and not kind.mismatch(each)
            and not carried(each)
        ]
        ways = {(each.source, each.destination) for each in carriers}
        problem = ""
        if readable:
            problem = f"{len(readable)} can be read on the underlay"
        elif not any((there, here) in ways for here, there in ways):
            problem = f"no {kind} was seen both ways"
        reasons = ["readable"] * len(readable) + [""] * len(carriers)
        return self._verdict(f"encapsulated in {kind}", problem, [*readable, *carriers], reasons)

    def _verdict(
        self, question: str, problem: str, judged: Sequence[Packet], reasons: Sequence[str]
    ) -> Verdict:
        heading = f"packets{described(self._criteria)} {question}: {problem or 'yes'}"
        shown = table(judged, reasons) if judged else self.table()
        return Verdict(f"{question}{described(self._criteria)}", not problem, f"{heading}\n{shown}")


def _number(given: object) -> None:
    """``tcp("80")`` would never match, so that its absence would prove nothing."""
    if given is not None and not isinstance(given, int):
        raise TypeError(f"{given!r} is not a number")
