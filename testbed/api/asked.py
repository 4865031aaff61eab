"""Whether what is asked for can be sent at all.

What is not sent is not answered either: ``assert not pod.reaches(other, tcp=70000)`` must be an
error, not a proof.
"""

from __future__ import annotations

from testbed.errors import UsageError
from testbed.topology.service import Service

__all__ = ["LARGEST", "at_a_port", "protocol_of", "seconds_of", "within"]

LARGEST = 65507
"""Bytes of payload of the largest IPv4 packet, for ICMP and UDP."""
_PORTS = 65535


def at_a_port(target: object, words: str) -> None:
    """Check that no echo request is sent to a Service: whether one answers says nothing of it.

    Raises:
        UsageError: ``target`` is a Service; ``words`` say what to do instead.
    """
    if isinstance(target, Service):
        ports = ", ".join(f"{each.port}/{each.protocol.lower()}" for each in target.ports)
        raise UsageError(f"{target} answers at its ports ({ports}), not to echo requests: {words}")


def within(name: str, value: object, least: int, most: int | None = None) -> None:
    """Check a number that may be left out.

    Raises:
        UsageError: it is none, or out of range.
    """
    if value is None:
        return
    if not isinstance(value, int) or value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"from {least} to {most}"
        raise UsageError(f"{name}={value!r}: use a number {limits}")


def seconds_of(timeout: object) -> None:
    """Check for how long an answer is waited for.

    Raises:
        UsageError: not at all.
    """
    if not isinstance(timeout, int | float) or timeout <= 0:
        raise UsageError(f"timeout={timeout!r}: use a number of seconds greater than 0")


def protocol_of(tcp: int | None, udp: int | None) -> tuple[str, int]:
    """What is sent, and to which port.

    Raises:
        UsageError: both were given, or no port.
    """
    if tcp is not None and udp is not None:
        raise UsageError("tcp and udp: a probe is one of them")
    within("tcp", tcp, 1, _PORTS)
    within("udp", udp, 1, _PORTS)
    if tcp is not None:
        return "tcp", tcp
    return ("icmp", 0) if udp is None else ("udp", udp)
