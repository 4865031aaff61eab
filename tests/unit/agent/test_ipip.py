"""The IP-in-IP device: the slow path's packets, and what it shares with the tc programs."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from testbed.agent import ipip, tun
from testbed.agent.errors import AgentError

PROGRAMS = Path(__file__).parents[3] / "images" / "node" / "ipip.bpf.h"
NOT_ECT, ECT_1, ECT_0, CE = range(4)


def header(tos: int, protocol: int, options: bytes = b"") -> bytes:
    """An IPv4 header with its checksum, from 192.0.2.1 to 192.0.2.2."""
    first = 0x45 + len(options) // 4
    parts = (first, tos, 40, 1, 0, 64, protocol, 0, bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2)))
    zero = struct.pack("!BBHHHBBH4s4s", *parts) + options
    return zero[:10] + struct.pack("!H", ~total(zero) & 0xFFFF) + zero[12:]


def total(data: bytes) -> int:
    """The one's complement sum: 0xffff over a header with the right checksum."""
    return sum(struct.unpack(f"!{len(data) // 2}H", data)) % 0xFFFF or 0xFFFF


def packet(outer: int, inner: int, options: bytes = b"") -> bytes:
    """IP-in-IP with these TOS bytes."""
    return header(outer, 4) + header(inner, 17, options) + b"payload"


@pytest.mark.parametrize("outer", [0, 0xB8, ECT_1, ECT_0])
def test_the_outer_header_goes(outer: int) -> None:
    """Its DSCP means nothing to the inner packet, nor do other ECN values (RFC 6040)."""
    assert tun.decapsulate(packet(outer, 0xB8)) == header(0xB8, 17) + b"payload"


def test_outer_options_go_too() -> None:
    """The header's length is its own."""
    outer = header(0, 4, b"\x01\x01\x01\x00")
    assert tun.decapsulate(outer + header(0, 17)) == header(0, 17)


@pytest.mark.parametrize("options", [b"", b"\x94\x04\x00\x00"])
@pytest.mark.parametrize("inner", [ECT_0, ECT_1, 0xB8 | ECT_0])
def test_a_congestion_mark_moves_to_the_inner_header(inner: int, options: bytes) -> None:
    """CE with the DSCP kept; the checksum, with options, is right again."""
    found = tun.decapsulate(packet(CE, inner, options))
    assert found is not None
    assert found[1] == inner | CE
    assert total(found[: 20 + len(options)]) == 0xFFFF
    assert found[20 + len(options) :] == b"payload"


def test_a_congestion_mark_that_the_inner_header_cannot_carry_drops_the_packet() -> None:
    """RFC 6040, section 4.2: not ECN-capable."""
    assert tun.decapsulate(packet(CE, 0xB8 | NOT_ECT)) is None
    assert tun.decapsulate(packet(CE, CE)) == header(CE, 17) + b"payload"


@pytest.mark.parametrize(
    "inner", [b"", bytes(19), b"\x60" + bytes(39), b"\x44" + bytes(30), b"\x4f" + bytes(31)]
)
def test_what_is_not_ipv4_is_not_decapsulated(inner: bytes) -> None:
    """Too short, IPv6, a header shorter than the shortest or longer than the packet."""
    assert tun.decapsulate(header(0, 4) + inner) is None


def test_counters_are_those_of_the_programs() -> None:
    """The C enumeration's names in its order."""
    [body] = re.findall(r"enum counter \{([^}]*)\}", PROGRAMS.read_text(encoding="ascii"))
    names = re.findall(r"\w+", body)
    assert tuple(name.lower() for name in names) == (*ipip.COUNTERS, "counters")


def test_the_programs_know_the_device_s_index() -> None:
    """No map tells them."""
    source = PROGRAMS.read_text(encoding="ascii")
    [index] = re.findall(r"#define TUNNEL_INDEX (\w+)", source)
    assert int(index, 16) == tun.INDEX


class Tools:
    """``ip`` and ``tc`` that list one device; commands that change something are kept."""

    def __init__(self, kind: str, index: int = 7, programs: Sequence[str] = ()) -> None:
        stats = {"packets": 5, "bytes": 400, "errors": 0}
        link = {"ifname": "tunl0", "ifindex": index, "linkinfo": {"info_kind": kind}}
        self.links: list[dict[str, Any]] = [{}, {**link, "stats64": {"rx": stats, "tx": stats}}]
        self.programs = programs
        self.changes: list[str] = []

    def __call__(self, argv: Sequence[str]) -> bytes:
        """Answer like the tool."""
        words = " ".join(argv)
        if words.startswith("ip -json"):
            return json.dumps(self.links).encode()
        if words == "tc -json qdisc show":
            rows: list[Any] = [{"kind": "clsact", "dev": "eth0"}, {"kind": "noqueue", "dev": "lo"}]
            return json.dumps(rows).encode()
        if words.startswith("tc -json filter show"):
            shown = self.programs if words.endswith("ingress") else ()
            progs = [{"options": {"prog": {"name": name, "id": 9}}} for name in shown]
            return json.dumps([{"kind": "bpf"}, *progs]).encode()
        self.changes.append(words)
        return b""


def test_report_of_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Driver, device, uplink and what the programs counted; other programs are not theirs."""
    tools = Tools("tun", tun.INDEX, ["ipip_decapsulat"])
    monkeypatch.setattr(ipip, "run", tools)
    monkeypatch.setattr("testbed.agent.bpf.read_array", lambda *_: [*range(len(ipip.COUNTERS))])
    found = ipip.report()
    assert (found["driver"], found["device"], found["uplink"]) == ("ebpf", "tunl0", "eth0")
    assert list(found["counters"]) == [*ipip.COUNTERS]
    assert found["counters"]["tx_bytes"] == 1


def test_report_of_the_kernel_s_driver(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The interface's counters; routes decide about the uplink."""
    monkeypatch.setattr(ipip, "run", Tools("ipip"))
    assert ipip.main(["-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "driver": "kernel",
        "device": "tunl0",
        "uplink": "",
        "counters": {
            f"{way}_{name}": value
            for way in ("tx", "rx")
            for name, value in (("packets", 5), ("bytes", 400), ("errors", 0))
        },
    }
    assert ipip.main([]) == 0
    assert "uplink      -\ntx_packets  5\n" in capsys.readouterr().out


def test_a_node_without_a_device_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 1 by main; another TUN is none."""
    monkeypatch.setattr(ipip, "run", Tools("tun", index=7))
    with pytest.raises(AgentError, match="no IP-in-IP device is up on this node"):
        ipip.main([])
    assert ipip.main(["-o", "yaml"]) == 2


class Held:
    """A TUN that the agent holds, and what it is called now."""

    def __init__(self, current: str) -> None:
        self.current = current
        self.closed = False

    def current_name(self) -> str:
        """Empty: deleted."""
        return self.current

    def close(self) -> None:
        """Noted."""
        self.closed = True


@pytest.mark.parametrize(
    ("current", "present", "commands"),
    [
        ("test0", {"test0"}, ["ip link delete test0"]),
        ("renamed0", {"renamed0"}, ["ip link delete renamed0"]),
        ("", set(), []),
        (
            "test0",
            {"test0", "test0-kernel"},
            ["ip link delete test0", "ip link set test0-kernel name test0"],
        ),
    ],
)
def test_a_device_that_is_no_longer_wanted_goes(
    monkeypatch: pytest.MonkeyPatch, current: str, present: set[str], commands: list[str]
) -> None:
    """By the name that it has now; the driver's, which it replaced, gets its name back."""
    tools, held = Tools("tun"), Held(current)
    monkeypatch.setattr(ipip, "run", tools)
    monkeypatch.setattr(ipip, "_held", {"test0": held})
    monkeypatch.setattr(ipip, "_exists", present.__contains__)
    assert ipip.remove([{"name": "test0", "uplink": "eth0"}], []) == tools.changes == commands
    assert held.closed


@pytest.mark.parametrize(("programs", "deleted"), [(["ipip_decapsulat"], True), (["other"], False)])
def test_the_uplink_s_program_goes_with_the_tunnel(
    monkeypatch: pytest.MonkeyPatch, programs: list[str], deleted: bool
) -> None:
    """Nobody else's does, and not while the tunnel stays."""
    tools = Tools("tun", tun.INDEX, programs)
    monkeypatch.setattr(ipip, "run", tools)
    before = [{"name": "gone0", "uplink": "eth0"}]
    assert ipip.remove(before, before) == []
    expected = ["tc filter delete dev eth0 ingress prio 1"] if deleted else []
    assert ipip.remove(before, []) == tools.changes == expected
