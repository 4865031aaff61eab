"""Reading /proc/net/route: which addresses have a route of their own."""

from __future__ import annotations

import socket
import struct

import pytest

from testbed.agent.fib import routed


def number(address: str) -> str:
    """An address as /proc/net/route writes it."""
    (value,) = struct.unpack("=I", socket.inet_aton(address))
    return f"{value:08X}"


def line(destination: str, mask: str, flags: int, interface: str = "eth0") -> str:
    """One route."""
    ends = f"{number(destination)}\t{number('0.0.0.0')}\t{flags:04X}"
    return f"{interface}\t{ends}\t0\t0\t0\t{number(mask)}\t0\t0\t0"


TABLE = "\n".join(
    [
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT",
        line("0.0.0.0", "0.0.0.0", 0x3),
        line("10.244.1.0", "255.255.255.192", 0x3, "tunl0"),
        line("10.244.2.0", "255.255.255.192", 0x1, "*"),
        line("10.244.3.0", "255.255.255.192", 0x201, "*"),
        line("10.244.2.5", "255.255.255.255", 0x5, "cali0"),
    ]
)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.244.1.7", True),
        ("10.244.1.64", False),
        ("10.244.2.4", False),
        ("10.244.2.5", True),
        ("10.244.3.1", False),
        ("192.168.0.1", False),
    ],
)
def test_the_longest_match_counts(address: str, expected: bool) -> None:
    """A default route is no route to a pod, and a blackhole is none either.

    As Linux 6.18 lists them: unreachable has a flag (0x200), blackhole only no device.
    """
    assert routed(address, TABLE) is expected
