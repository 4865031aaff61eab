"""BIRD's configuration of a Calico node and of a router."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.bgp import bird

POOL = IPv4Network("10.244.0.0/16")
BLOCKS = (IPv4Network("10.244.7.0/26"), IPv4Network("10.244.9.64/26"))
MESH = bird.Peer("Mesh", IPv4Address("172.18.0.3"), 64512)
GLOBAL = bird.Peer("Global", IPv4Address("172.18.255.254"), 64513)
NODE = bird.Node(
    address=IPv4Address("172.18.0.2"),
    subnet=IPv4Network("172.18.0.0/16"),
    as_number=64512,
    pool=POOL,
    blocks=BLOCKS,
    peers=(MESH, GLOBAL),
    tunnel="tunl0",
)
ADDRESSES = st.ip_addresses(v=4)


def rendered(node: bird.Node, name: str = "bird.cfg") -> str:
    """One of the three files."""
    return next(
        each.content for each in bird.files(node) if each.path == f"{bird.DIRECTORY}/{name}"
    )


def section(text: str, head: str) -> str:
    """What stands between the braces after ``head``, to a brace that begins a line."""
    found: list[str] = re.findall(
        rf"^{re.escape(head)}\s*\{{\n(.*?)^\}}", text, re.DOTALL | re.MULTILINE
    )
    return found[0]


def passive(own: IPv4Address, peer: IPv4Address) -> bool:
    """Whether ``own`` waits for ``peer`` to connect."""
    node = replace(NODE, address=own, peers=(replace(MESH, address=peer),))
    return "passive on;" in rendered(node)


@given(ADDRESSES, ADDRESSES)
def test_of_each_pair_exactly_one_side_waits(one: IPv4Address, other: IPv4Address) -> None:
    """So there is one session, and there is always one."""
    if one != other:
        assert passive(one, other) != passive(other, one)


def test_addresses_are_compared_as_text() -> None:
    """As confd does: .10 is less than .9."""
    nine, ten = IPv4Address("172.18.0.9"), IPv4Address("172.18.0.10")
    assert (passive(ten, nine), passive(nine, ten)) == (True, False)


def test_sessions_are_named_by_the_peer_s_address() -> None:
    """Mesh by several hops within the AS, a router next door in its own; nodes dial routers."""
    text = rendered(NODE)
    mesh = section(text, "protocol bgp Mesh_172_18_0_3 from bgp_template")
    assert "  multihop;\n" in mesh
    assert "  neighbor 172.18.0.3 as 64512;\n" in mesh
    assert "  source address 172.18.0.2;\n" in mesh
    router = section(text, "protocol bgp Global_172_18_255_254 from bgp_template")
    assert "multihop" not in router
    assert "passive" not in router
    assert "  neighbor 172.18.255.254 as 64513;\n" in router


def test_a_kind_of_peer_that_is_not_there_is_said() -> None:
    """As in Calico's own file, so that one sees where it would stand."""
    assert "# No global peers configured." in rendered(replace(NODE, peers=(MESH,)))
    assert "# No node-to-node mesh configured." in rendered(replace(NODE, peers=()))


def test_template_of_all_sessions() -> None:
    """calico.md section 6; the delay before the first attempt is BIRD's least."""
    template = section(rendered(NODE), "template bgp bgp_template")
    for line in (
        "local as 64512;",
        "graceful restart on;",
        "connect delay time 1;",
        "connect retry time 5;",
        "error wait time 5,30;",
        "import all;",
        "gateway recursive;",
        "add paths on;",
    ):
        assert line in template


def test_restart_time_is_bird_s_own_unless_given() -> None:
    """120 seconds in both."""
    assert "graceful restart time" not in rendered(NODE)
    text = rendered(replace(NODE, max_restart_time=5))
    assert text.count("  graceful restart time 5;\n") == 2


def test_kernel_and_interfaces() -> None:
    """Routes outlive BIRD; pods' interfaces are not looked at."""
    text = rendered(NODE)
    kernel = section(text, "protocol kernel")
    for line in ("learn;", "persist;", "scan time 2;", "metric 0;", "merge paths on;"):
        assert line in kernel
    assert "export filter calico_kernel_programming;" in kernel
    assert 'interface -"cali*", -"kube-ipvs*", "*";' in section(text, "protocol direct")


def test_own_blocks_go_nowhere_and_are_announced_whole() -> None:
    """A blackhole each; what is beneath them is the node's own business."""
    text = rendered(NODE, "bird_aggr.cfg")
    static = section(text, "protocol static")
    assert re.findall(r"route (\S+) blackhole;", static) == [str(block) for block in BLOCKS]
    function = section(text, "function calico_aggr ()\n")
    assert re.findall(r"if \( net ([=~]) (\S+) \) then { (\w+); }", function) == [
        (sign, str(block), verdict)
        for block in BLOCKS
        for sign, verdict in (("=", "accept"), ("~", "reject"))
    ]


def test_a_block_of_one_address_has_no_blackhole() -> None:
    """It would take the place of the pod's own route."""
    text = rendered(replace(NODE, blocks=(IPv4Network("10.244.7.5/32"),)), "bird_aggr.cfg")
    assert "blackhole" not in text
    assert "if ( net = 10.244.7.5/32 ) then { accept; }" in text


def test_what_is_announced() -> None:
    """Blocks, and of other routes those to own pods with borrowed addresses; nothing of others."""
    text = rendered(NODE, "bird_ipam.cfg")
    lines = [
        line.strip()
        for line in section(text, "filter calico_export_to_bgp_peers").splitlines()
        if "#" not in line
    ]
    assert lines == [
        'if ( source != RTS_STATIC && ! ( ifname ~ "cali*" ) ) then { reject; }',
        "calico_aggr();",
        "if ( net ~ 10.244.0.0/16 ) then { accept; }",
        "reject;",
    ]


TUNNELLED = 'ifname = "tunl0"; onlink = true; gw = bgp_next_hop;'


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (NODE, ["if ( source = RTS_BGP && net ~ 10.244.0.0/16 ) then {", TUNNELLED, "}"]),
        (
            replace(NODE, cross_subnet=True),
            [
                "if ( source = RTS_BGP && net ~ 10.244.0.0/16 "
                "&& ! ( bgp_next_hop ~ 172.18.0.0/16 ) ) then {",
                TUNNELLED,
                "}",
            ],
        ),
        (replace(NODE, tunnel=""), []),
        (
            replace(NODE, programs_routes=False),
            ["if ( net ~ 10.244.0.0/16 ) then { reject; } # Cluster routes are handled by Felix"],
        ),
    ],
    ids=["Always", "CrossSubnet", "no encapsulation", "Felix"],
)
def test_what_the_kernel_gets(node: bird.Node, expected: list[str]) -> None:
    """The interface before onlink and the gateway: BIRD 2's stand-in for krt_tunnel."""
    text = section(rendered(node, "bird_ipam.cfg"), "filter calico_kernel_programming")
    lines = [line.strip() for line in text.splitlines() if not line.strip().startswith("#")]
    assert lines == [
        "if ( source = RTS_DEVICE ) then { reject; }",
        *expected,
        "accept;",
    ]


def test_the_process_reads_what_is_written() -> None:
    """A change of any file makes BIRD read all of them again, through the same socket."""
    process = bird.process()
    assert set(process.files) == {*(each.path for each in bird.files(NODE)), bird.SERVICES}
    assert process.argv[process.argv.index("-c") + 1] == f"{bird.DIRECTORY}/bird.cfg"
    assert "-R" in process.argv
    assert process.reload == ("birdcl", "-s", bird.SOCKET, "configure")
    assert process.argv[process.argv.index("-s") + 1] == bird.SOCKET


def test_a_router_learns_pods_and_tells_nobody() -> None:
    """It waits for the nodes; its routes go with it."""
    identity = IPv4Address("172.18.255.254")
    peer = bird.Peer("Node", IPv4Address("172.18.0.2"), 64512)
    (file,) = bird.router_files(64513, identity, [POOL], [peer])
    assert "router id 172.18.255.254;" in file.content
    assert "persist" not in file.content
    template = section(file.content, "template bgp nodes")
    for line in ("local as 64513;", "passive on;", "import filter pods;", "export none;"):
        assert line in template
    assert "neighbor 172.18.0.2 as 64512;" in section(
        file.content, "protocol bgp Node_172_18_0_2 from nodes"
    )
    assert "if ( source = RTS_BGP && net ~ 10.244.0.0/16 ) then { accept; }" in file.content


def test_addresses_of_services_are_announced_but_not_in_the_kernel() -> None:
    """A blackhole there would stop what the node itself sends, before kube-proxy sees it."""
    pool = IPv4Network("203.0.113.0/24")
    main, _, ipam = bird.files(replace(NODE, service_pools=(pool,)))
    assert 'include "services*.cfg";' in main.content
    export, kernel = ipam.content.split("filter calico_kernel_programming")
    assert f"if ( net ~ {pool} ) then {{ accept; }}" in export
    assert f"if ( net ~ {pool} ) then {{ reject; }}" in kernel
    assert bird.files(replace(NODE, service_pools=())) == bird.files(NODE)
