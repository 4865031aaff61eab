"""Whether a packet crosses as it should, and how it does instead, in words."""

from __future__ import annotations

import pytest

from testbed.packets.decoder import decode
from testbed.packets.encapsulation import IPIP, PLAIN, VXLAN, WIREGUARD, Encapsulation, kind_of
from tests.unit.packets import building
from tests.unit.packets.building import ECHO, ethernet, ipv4, ipv6, udp

IN_VXLAN = decode(building.VXLAN)
IN_IP = decode(building.IPIP)
CUT = decode(ethernet(ipv4(4, ECHO[14:24])))
SIXINFOUR = decode(ethernet(ipv4(41, ipv6(17, udp(5, 6, b"x")))))
DIRECT = decode(ECHO)
ENCRYPTED = decode(ethernet(ipv4(17, udp(51820, 51820, bytes(32)))))
OTHER_UDP = decode(ethernet(ipv4(17, udp(51820, 53, bytes(32)))))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (VXLAN(), "VXLAN"),
        (VXLAN(1), "VXLAN VNI 1"),
        (VXLAN(port=4789), "VXLAN, UDP 4789"),
        (VXLAN(1, 8472), "VXLAN VNI 1, UDP 8472"),
        (IPIP(), "IP-in-IP"),
        (WIREGUARD(), "WireGuard, UDP 51820"),
        (PLAIN, "plain"),
    ],
)
def test_every_kind_has_a_name(kind: Encapsulation, name: str) -> None:
    """With what is asked for, and nothing else."""
    assert str(kind) == name


def test_how_packets_cross() -> None:
    """The outermost encapsulation counts."""
    packets = (IN_VXLAN, IN_IP, SIXINFOUR, DIRECT, CUT)
    assert [kind_of(each) for each in packets] == [
        "VXLAN VNI 7, UDP 8472",
        "IP-in-IP",
        "IPv6-in-IP",
        "plain",
        "plain",
    ]


def test_each_kind_is_recognized() -> None:
    """And no other is taken for it."""
    packets = (IN_VXLAN, IN_IP, SIXINFOUR, CUT, DIRECT, ENCRYPTED, OTHER_UDP)

    def matching(kind: Encapsulation) -> list[int]:
        return [number for number, each in enumerate(packets) if not kind.mismatch(each)]

    assert matching(VXLAN(7, 8472)) == matching(VXLAN()) == [0]
    assert matching(VXLAN(8)) == matching(VXLAN(port=4789)) == []
    assert matching(IPIP()) == [1]
    assert matching(PLAIN) == [3, 4, 5, 6]
    assert matching(WIREGUARD()) == [5]
    assert matching(WIREGUARD(8472)) == []


def test_kinds_are_values() -> None:
    """Equal by what they ask for, and not to be changed."""
    assert VXLAN(1) == VXLAN(1, None)
    for kind in (VXLAN(), IPIP(), WIREGUARD(), PLAIN):
        with pytest.raises((AttributeError, TypeError)):
            kind.port = 1  # type: ignore[union-attr, misc]
