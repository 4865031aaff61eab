"""Virtual servers: what is fed to ipvsadm and ip, and in which order."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from testbed.agent import ipvs
from testbed.agent.command import Completed
from testbed.agent.errors import AgentError
from testbed.agent.ipvs import Virtual, difference, parse, render

LISTED = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.96.0.41:80 rr persistent 10800
  -> 10.244.0.5:80                Masq    1      0          0         
  -> 10.244.1.7:80                Masq    0      1          2         
UDP  10.96.0.10:53 rr
  -> 10.244.0.9:53                Local   1      0          7         
SCTP 10.96.0.46:80 rr
"""  # noqa: W291
KEY = "-t 10.96.0.41:80"
ONE, TWO = "10.244.0.5:80", "10.244.1.7:80"


def virtual(*servers: str, flags: str = "-s rr") -> dict[str, Any]:
    """A virtual server of a unit."""
    return {"flags": flags, "servers": dict.fromkeys(servers, "-m -w 1")}


def present(*servers: str, flags: str = "-s rr", busy: Sequence[str] = ()) -> Virtual:
    """A virtual server of the kernel."""
    return Virtual(flags, dict.fromkeys(servers, "-m -w 1"), frozenset(busy))


def test_the_listing_is_read() -> None:
    """Spelled as units are, with the servers that have connections."""
    draining = {ONE: "-m -w 1", TWO: "-m -w 0"}
    assert parse(LISTED) == {
        KEY: Virtual("-s rr -p 10800", draining, frozenset({TWO})),
        "-u 10.96.0.10:53": Virtual(
            "-s rr", {"10.244.0.9:53": "-m -w 1"}, frozenset({"10.244.0.9:53"})
        ),
        "--sctp-service 10.96.0.46:80": Virtual("-s rr", {}, frozenset()),
    }


def test_what_is_there_is_left_alone() -> None:
    """Nothing is fed for it."""
    assert difference({KEY: virtual(ONE, TWO)}, {KEY: present(ONE, TWO)}) == []


def test_a_new_virtual_server_comes_with_its_servers() -> None:
    """One -A, and one -a for each."""
    assert difference({KEY: virtual(ONE, TWO)}, {}) == [
        f"-A {KEY} -s rr",
        f"-a {KEY} -r {ONE} -m -w 1",
        f"-a {KEY} -r {TWO} -m -w 1",
    ]


def test_a_replacement_is_added_before_a_server_goes() -> None:
    """No connection meets a virtual server without servers."""
    assert difference({KEY: virtual(TWO)}, {KEY: present(ONE)}) == [
        f"-a {KEY} -r {TWO} -m -w 1",
        f"-d {KEY} -r {ONE}",
    ]


def test_new_flags_are_edited() -> None:
    """Affinity comes and goes while the virtual server stays."""
    wanted = {KEY: virtual(ONE, flags="-s rr -p 10800")}
    assert difference(wanted, {KEY: present(ONE)}) == [f"-E {KEY} -s rr -p 10800"]


def test_a_virtual_server_of_no_unit_goes() -> None:
    """With its servers."""
    assert difference({}, {KEY: present(ONE)}) == [f"-D {KEY}"]


def test_a_busy_tcp_server_is_drained() -> None:
    """Weight 0 at first; it goes when it has no connection left, and may come back before."""
    busy = present(ONE, busy=[ONE])
    assert difference({KEY: virtual()}, {KEY: busy}) == [f"-e {KEY} -r {ONE} -m -w 0"]
    draining = busy._replace(servers={ONE: "-m -w 0"})
    assert difference({KEY: virtual()}, {KEY: draining}) == []
    assert difference({KEY: virtual(ONE)}, {KEY: draining}) == [f"-e {KEY} -r {ONE} -m -w 1"]
    over = draining._replace(busy=frozenset())
    assert difference({KEY: virtual()}, {KEY: over}) == [f"-d {KEY} -r {ONE}"]


def test_a_busy_udp_server_goes_at_once() -> None:
    """Its connections end with it."""
    key = "-u 10.96.0.10:53"
    assert difference({key: virtual()}, {key: present(ONE, busy=[ONE])}) == [f"-d {key} -r {ONE}"]


def test_people_read_what_ipvsadm_reads() -> None:
    """All virtual servers of all units."""
    units: dict[str, dict[str, Any]] = {"": {"ipvs": {}}, "ns1/svc1": {"ipvs": {KEY: virtual(ONE)}}}
    assert render(units) == f"-A {KEY} -s rr\n-a {KEY} -r {ONE} -m -w 1\n"


class Node:
    """A node's tools: what they answer, and what they were fed."""

    def __init__(self) -> None:
        self.listed = ""
        self.addresses = {"lo": ["127.0.0.1"], "eth0": ["172.18.0.2"], "cni0": ["10.244.0.1"]}
        self.fed: list[str] = []
        self.complaint = b""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"") -> bytes:
        """What :func:`testbed.agent.command.run` does."""
        if argv[0] == "ipvsadm":
            return self.listed.encode()
        if "-batch" in argv:
            self.fed += stdin.decode().splitlines()
            return b""
        links = [
            {"ifname": name, "addr_info": [{"local": each} for each in addresses]}
            for name, addresses in self.addresses.items()
        ]
        return json.dumps([*links, {}]).encode()

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"") -> Completed:
        """What :func:`testbed.agent.command.execute` does."""
        assert list(argv) == ["ipvsadm", "--restore"]
        self.fed += stdin.decode().splitlines()
        return Completed(0, b"", self.complaint)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node without Services."""
    fake = Node()
    monkeypatch.setattr(ipvs, "run", fake.run)
    monkeypatch.setattr(ipvs, "execute", fake.execute)
    return fake


def unit(*addresses: str, **virtuals: dict[str, Any]) -> dict[str, Any]:
    """A unit of a Service."""
    return {"ipvs": virtuals, "addresses": list(addresses)}


def test_an_address_appears_when_its_virtual_server_is_ready(node: Node) -> None:
    """So that no packet to it is refused meanwhile."""
    now = {"ns1/svc1": unit("10.96.0.41", **{KEY: virtual(ONE)})}
    changes = ipvs.apply({}, now)
    assert node.fed == [
        f"-A {KEY} -s rr",
        f"-a {KEY} -r {ONE} -m -w 1",
        "address add 10.96.0.41/32 dev kube-ipvs0",
    ]
    assert changes == [
        f"ipvsadm -A {KEY} -s rr",
        f"ipvsadm -a {KEY} -r {ONE} -m -w 1",
        "ip address add 10.96.0.41/32 dev kube-ipvs0",
    ]


def test_what_went_is_removed(node: Node) -> None:
    """Virtual servers and addresses."""
    node.listed = LISTED
    node.addresses["kube-ipvs0"] = ["10.96.0.41"]
    ipvs.apply({"ns1/svc1": unit("10.96.0.41", **{KEY: virtual(ONE)})}, {})
    assert f"-D {KEY}" in node.fed
    assert node.fed[-1] == "address delete 10.96.0.41/32 dev kube-ipvs0"


def test_every_address_of_the_node_serves_node_ports(node: Node) -> None:
    """But loopback's and those of kube-ipvs0."""
    node.addresses["kube-ipvs0"] = ["10.96.0.41"]
    ipvs.apply({}, {"ns1/svc1": unit("10.96.0.41", **{"-t 0.0.0.0:30080": virtual()})})
    assert node.fed == ["-A -t 10.244.0.1:30080 -s rr", "-A -t 172.18.0.2:30080 -s rr"]


def test_an_announced_address_is_bound_and_serves_no_node_ports(node: Node) -> None:
    """Whether an announcer has put it on another link just now or not."""
    node.addresses["eth0"].append("172.18.0.200")
    ipvs.apply({}, {"ns1/svc1": unit("172.18.0.200", **{"-t 0.0.0.0:30080": virtual()})})
    assert node.fed == [
        "-A -t 10.244.0.1:30080 -s rr",
        "-A -t 172.18.0.2:30080 -s rr",
        "address add 172.18.0.200/32 dev kube-ipvs0",
    ]


def test_a_refused_line_is_an_error(node: Node) -> None:
    """Though ipvsadm ends with status 0."""
    node.complaint = b"Service not defined\n"
    with pytest.raises(AgentError, match="Service not defined"):
        ipvs.apply({}, {"ns1/svc1": unit(**{KEY: virtual()})})


def test_other_modes_need_no_ipvsadm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read where no unit has virtual servers."""

    def never(*_: object, **__: object) -> bytes:
        raise AssertionError

    refuse: Callable[..., bytes] = never
    monkeypatch.setattr(ipvs, "run", refuse)
    assert ipvs.apply({}, {"": {"iptables": ""}}) == []
