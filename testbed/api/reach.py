"""Whether one end reaches another: the answer to one probe, and why there was none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from testbed.api.asked import at_a_port, protocol_of, seconds_of
from testbed.errors import NodeError, UsageError
from testbed.packets import explanations
from testbed.verify.trace import path
from testbed.verify.trace.conversation import conversing, marked, sending
from testbed.verify.trace.model import Trace
from testbed.verify.trace.words import diverges

if TYPE_CHECKING:
    from testbed.api.place import Address, Place
    from testbed.api.testbed import Testbed
    from testbed.topology.service import Service

__all__ = ["Reach", "described", "diagnosed", "sent", "traced"]

_SIZE = 56
_VERSION = 4


@dataclass(frozen=True, slots=True)
class Reach:
    """True if the probe was answered."""

    question: str
    ok: bool
    said: str
    """What the sender's socket heard: ``answered``, ``Connection refused (TCP reset)``, …"""
    trace: Callable[[], Trace] = field(repr=False, compare=False)
    """Sends such a probe again and follows it."""

    def __bool__(self) -> bool:
        explanations.note(lambda: self.explanation)
        return self.ok

    def __repr__(self) -> str:
        return f"<{self.question}: {'yes' if self.ok else 'no'}, {self.said}>"

    @property
    def explanation(self) -> str:
        """What was heard; without an answer, the diagnosis of a trace that is made now."""
        heading = f"{self.question}: {'yes' if self.ok else 'no'}, {self.said}"
        return heading if self.ok else f"{heading}\n{diagnosed(self.trace)}"


def diagnosed(trace: Callable[[], Trace]) -> str:
    """Make a trace and describe it; never raises, because it is asked when a test has failed."""
    try:
        return described(trace())
    except Exception as error:  # an explanation must not hide what it explains
        return f"it could not be traced: {error}"


def described(trace: Trace) -> str:
    """Why a packet died, in lines."""
    found = trace.diagnosis
    if found is None:
        if trace.answered:
            return "traced afterwards, a probe was answered: what was wrong is so no longer"
        return f"traced afterwards: no answer, for no reason that is known ({trace.error})"
    lines = [f"traced afterwards ({found.cause}): {found.summary}"]
    if found.expected and diverges(trace):  # what arrived and was refused was not lost
        places = f"last seen at {found.last}" if found.last else "seen nowhere"
        lines.append(f"the {found.leg} was {places}, expected next at {found.expected}")
    lines += [f"  {line}" for line in found.evidence]
    return "\n".join([*lines, *filter(None, [found.advice])])


def sent(
    testbed: Testbed,
    source: Place,
    target: Place | Service | Address | str,
    address: Address,
    *,
    tcp: int | None,
    udp: int | None,
    timeout: float,
) -> Reach:
    """Send one probe to ``address``; see :meth:`testbed.api.place.Place.reaches`.

    Raises:
        NodeError: the source does not run, so that nothing was sent.
        UsageError: such a probe cannot be sent.
    """
    protocol, port = protocol_of(tcp, udp)
    if not port:
        at_a_port(target, "give one as tcp=… or udp=…")
    seconds_of(timeout)
    if address.version != _VERSION:
        raise UsageError(f"{address}: `reaches` sends IPv4; ask `ping` or a program by `run`")
    now = testbed.snapshot
    end = path.endpoint(testbed.cluster, now.observed, source.key)
    question = sending(marked(protocol, str(address), port, _SIZE), end, timeout)
    running = {node: each for node, each in now.containers.items() if node == end.node}
    with conversing(testbed.client, running, [end]) as nodes:
        answer = nodes.ask(end.node, question)
    if not answer["sent_ns"]:
        raise NodeError(f"{source} sent nothing: {answer['error']}")
    at = f" at {protocol.upper()} port {port}" if port else " by ICMP echo"
    silence = answer["error"] or f"no answer within {timeout:g} s"
    return Reach(
        f"{source} reaches {target}{at}",
        answer["answered"],
        "answered" if answer["answered"] else silence,
        # A client's trace to a Service by name is to another address than this.
        partial(traced, testbed, source, getattr(target, "cluster_ip", target), protocol, port),
    )


def traced(
    testbed: Testbed,
    source: Place,
    target: Place | Service | Address | str,
    protocol: str,
    port: int = 0,
    size: int = _SIZE,
    *,
    df: bool = False,
) -> Trace:
    """Send such a probe again and follow it; not what a Service's first port is for."""
    from testbed import tracing

    return tracing.trace(
        testbed.client,
        testbed.name,
        str(source),
        str(target),
        protocol=protocol,
        port=port or None,
        size=size,
        dont_fragment=df,
    )[0]
