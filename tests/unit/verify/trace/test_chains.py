"""Following kube-proxy's rules to where they end too early."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from testbed.verify.trace.chains import gap
from testbed.verify.trace.model import LOAD_BALANCER, NODE_PORT, Service

SERVICE = Service(
    *("default/web", "10.96.0.10", "tcp", 80),
    known=True,
    ports=("80/tcp",),
    mode="iptables",
    local=False,
    endpoints=(),
)
IPTABLES = """\
*filter
:KUBE-SERVICES - [0:0]
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-BBBBBBBBBBBBBBBB - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-WWWWWWWWWWWWWWWW - [0:0]
[9:9] -A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
[9:9] -A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
[0:0] -A KUBE-SEP-AAAAAAAAAAAAAAAA -s 10.244.0.5/32 -m comment --comment "default/web:http" -j KUBE-MARK-MASQ
[0:0] -A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -m comment --comment "default/web:http" -m tcp -j DNAT --to-destination 10.244.0.5:8080
[0:0] -A KUBE-SEP-BBBBBBBBBBBBBBBB -s 10.244.1.5/32 -m comment --comment "default/web:http" -j KUBE-MARK-MASQ
[0:0] -A KUBE-SEP-BBBBBBBBBBBBBBBB -p tcp -m comment --comment "default/web:http" -m tcp -j DNAT --to-destination 10.244.1.5:8080
[0:0] -A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "default/web:http cluster IP" -m tcp --dport 80 -j KUBE-SVC-WWWWWWWWWWWWWWWW
[0:0] -A KUBE-SVC-WWWWWWWWWWWWWWWW ! -s 10.244.0.0/16 -d 10.96.0.10/32 -p tcp -m comment --comment "default/web:http cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ
[0:0] -A KUBE-SVC-WWWWWWWWWWWWWWWW -m comment --comment "default/web:http -> 10.244.0.5:8080" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-AAAAAAAAAAAAAAAA
[0:0] -A KUBE-SVC-WWWWWWWWWWWWWWWW -m comment --comment "default/web:http -> 10.244.1.5:8080" -j KUBE-SEP-BBBBBBBBBBBBBBBB
COMMIT
"""  # noqa: E501 - as iptables-save prints it
NFTABLES = """\
table ip kube-proxy {
	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.0.10 . tcp . 80 : goto service-WWWWWWWW-default/web/tcp/http,
				10.96.0.10 . udp . 53 : goto service-UUUUUUUU-default/web/udp/udp }
	}

	chain nat-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump services
	}

	chain nat-output {
		type nat hook output priority -100; policy accept;
		jump services
	}

	chain services {
		ip daddr . meta l4proto . th dport vmap @service-ips
	}

	chain service-WWWWWWWW-default/web/tcp/http {
		ip daddr 10.96.0.10 tcp dport 80 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
		numgen random mod 2 vmap { 0 : goto endpoint-AAAAAAAA-default/web/tcp/http__10.244.0.5/8080, 1 : goto endpoint-BBBBBBBB-default/web/tcp/http__10.244.1.5/8080 }
	}

	chain endpoint-AAAAAAAA-default/web/tcp/http__10.244.0.5/8080 {
		ip saddr 10.244.0.5 jump mark-for-masquerade
		meta l4proto tcp dnat to 10.244.0.5:8080
	}

	chain endpoint-BBBBBBBB-default/web/tcp/http__10.244.1.5/8080 {
		ip saddr 10.244.1.5 jump mark-for-masquerade
		meta l4proto tcp dnat to 10.244.1.5:8080
	}
}
"""  # noqa: E501 - as nft prints it
NFT_SERVICE = replace(SERVICE, mode="nftables")
IPVS = """\
-A -t 10.96.0.10:80 -s rr
-a -t 10.96.0.10:80 -r 10.244.0.5:8080 -m -w 1
-a -t 10.96.0.10:80 -r 10.244.1.5:8080 -m -w 1
-A -t 10.96.0.10:8000 -s rr -p 30
-A -u 10.96.0.10:80 -s rr
-a -u 10.96.0.10:80 -r 10.244.0.5:8081 -m -w 1
-A -f 1 -s rr
"""
OWN = [{"ifname": "kube-ipvs0", "addr_info": [{"local": "10.96.0.10", "prefixlen": 32}]}]
IPVS_SERVICE = replace(SERVICE, mode="ipvs")


def without(text: str, *words: str) -> str:
    """Without the lines that hold all of ``words``."""
    return "".join(
        line for line in text.splitlines(True) if not all(word in line for word in words)
    )


@pytest.mark.parametrize("forwarded", [True, False])
def test_whole_rules_have_no_gap(forwarded: bool) -> None:
    """In every mode, and where nothing was read."""
    assert gap({"iptables": IPTABLES}, SERVICE, forwarded=forwarded) == ()
    assert gap({"nft": NFTABLES}, NFT_SERVICE, forwarded=forwarded) == ()
    assert gap({"ipvs": IPVS, "addresses": OWN}, IPVS_SERVICE, forwarded=forwarded) == ()
    assert gap({}, IPVS_SERVICE, forwarded=forwarded) == ()


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (("-A PREROUTING",), "nat PREROUTING has no jump to KUBE-SERVICES"),
        (("-A KUBE-SERVICES",), "KUBE-SERVICES has no rule for 10.96.0.10:80/tcp"),
        (
            ("-A KUBE-SVC",),
            "KUBE-SVC-WWWWWWWWWWWWWWWW, the chain of svc/default/web, leads to no endpoint",
        ),
        (
            ("SEP-BBBB", "DNAT"),
            "KUBE-SEP-BBBBBBBBBBBBBBBB, an endpoint's chain of svc/default/web, has no DNAT rule",
        ),
    ],
)
def test_the_first_gap_in_iptables(words: tuple[str, ...], missing: str) -> None:
    """Named by the chain that lacks something."""
    assert gap({"iptables": without(IPTABLES, *words)}, SERVICE, forwarded=True) == (missing,)


def test_a_nodes_own_packets_take_another_hook() -> None:
    """OUTPUT, and nat-output."""
    text = without(IPTABLES, "-A OUTPUT")
    assert gap({"iptables": text}, SERVICE, forwarded=True) == ()
    assert gap({"iptables": text}, SERVICE, forwarded=False) == (
        "nat OUTPUT has no jump to KUBE-SERVICES",
    )


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (("table ip",), "there is no table `ip kube-proxy`"),
        (("jump services",), "nat-prerouting has no jump to services"),
        (("10.96.0.10 . tcp",), "the map service-ips has no element for 10.96.0.10:80/tcp"),
        (
            ("numgen",),
            "service-WWWWWWWW-default/web/tcp/http, the chain of svc/default/web, leads to no "
            "endpoint",
        ),
        (
            ("dnat to 10.244.0.5",),
            "endpoint-AAAAAAAA-default/web/tcp/http__10.244.0.5/8080, an endpoint's chain of "
            "svc/default/web, has no dnat rule",
        ),
    ],
)
def test_the_first_gap_in_nftables(words: tuple[str, ...], missing: str) -> None:
    """Named by the chain or map that lacks something."""
    assert gap({"nft": without(NFTABLES, *words)}, NFT_SERVICE, forwarded=True) == (missing,)


BALANCED = replace(SERVICE, kind=LOAD_BALANCER, other_ip="172.18.255.200")
PORT = replace(SERVICE, kind=NODE_PORT, other_ip="172.18.0.2", port=30080)
OUTER_IPTABLES = IPTABLES.replace(
    "[0:0] -A KUBE-SVC-WWWWWWWWWWWWWWWW ! -s",
    """\
[0:0] -A KUBE-SERVICES -d 172.18.255.200/32 -p tcp -m tcp --dport 80 -j KUBE-FW-WWWWWWWWWWWWWWWW
[0:0] -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
[0:0] -A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-EXT-WWWWWWWWWWWWWWWW
[0:0] -A KUBE-FW-WWWWWWWWWWWWWWWW -s 172.18.0.0/16 -j KUBE-EXT-WWWWWWWWWWWWWWWW
[0:0] -A KUBE-EXT-WWWWWWWWWWWWWWWW -m comment --comment "masquerade" -j KUBE-MARK-MASQ
[0:0] -A KUBE-EXT-WWWWWWWWWWWWWWWW -j KUBE-SVC-WWWWWWWWWWWWWWWW
[0:0] -A KUBE-SVC-WWWWWWWWWWWWWWWW ! -s""",
)
OUTER_IPTABLES = OUTER_IPTABLES.replace(
    ":KUBE-SERVICES - [0:0]\n:KUBE-SVC",
    ":KUBE-SERVICES - [0:0]\n:KUBE-EXT-WWWWWWWWWWWWWWWW - [0:0]\n:KUBE-SVC",
)
OUTER_NFTABLES = NFTABLES.replace(
    "\t\telements = { 10.96.0.10 . tcp . 80",
    "\t\telements = { 172.18.255.200 . tcp . 80 : goto external-WWWWWWWW-default/web/tcp/http,\n"
    "\t\t\t\t10.96.0.10 . tcp . 80",
).replace(
    "\tchain nat-prerouting",
    """\
	map service-nodeports {
		type inet_proto . inet_service : verdict
		elements = { tcp . 30080 : goto external-WWWWWWWW-default/web/tcp/http }
	}

	chain external-WWWWWWWW-default/web/tcp/http {
		jump mark-for-masquerade
		goto service-WWWWWWWW-default/web/tcp/http
	}

	chain nat-prerouting""",
    1,
)


@pytest.mark.parametrize("service", [BALANCED, PORT], ids=["balancer", "node port"])
def test_the_ways_from_outside_have_no_gap(service: Service) -> None:
    """By KUBE-FW and KUBE-EXT, by KUBE-NODEPORTS, and by the external chain of nftables."""
    assert gap({"iptables": OUTER_IPTABLES}, service, forwarded=True) == ()
    nft = replace(service, mode="nftables")
    assert gap({"nft": OUTER_NFTABLES}, nft, forwarded=True) == ()


@pytest.mark.parametrize(
    ("service", "words", "missing"),
    [
        (PORT, ("-j KUBE-NODEPORTS",), "KUBE-SERVICES has no jump to KUBE-NODEPORTS"),
        (PORT, ("--dport 30080",), "KUBE-NODEPORTS has no rule for 172.18.0.2:30080/tcp"),
        (
            PORT,
            ("-A KUBE-EXT",),
            "KUBE-EXT-WWWWWWWWWWWWWWWW, the chain of svc/default/web, leads to no endpoint",
        ),
        (
            BALANCED,
            ("-A KUBE-SVC",),
            "KUBE-SVC-WWWWWWWWWWWWWWWW, the chain of svc/default/web, leads to no endpoint",
        ),
        (BALANCED, ("172.18.255.200",), "KUBE-SERVICES has no rule for 172.18.255.200:80/tcp"),
    ],
)
def test_a_gap_on_a_way_from_outside(
    service: Service, words: tuple[str, ...], missing: str
) -> None:
    """Wherever on it the rule is missing."""
    text = without(OUTER_IPTABLES, *words)
    assert gap({"iptables": text}, service, forwarded=True) == (missing,)


@pytest.mark.parametrize(
    ("service", "words", "missing"),
    [
        (PORT, ("30080",), "the map service-nodeports has no element for 172.18.0.2:30080/tcp"),
        (
            BALANCED,
            ("goto service-WWWWWWWW-default/web/tcp/http\n",),
            "external-WWWWWWWW-default/web/tcp/http, the chain of svc/default/web, leads to no "
            "endpoint",
        ),
        (
            BALANCED,
            ("dnat to 10.244.0.5",),
            "endpoint-AAAAAAAA-default/web/tcp/http__10.244.0.5/8080, an endpoint's chain of "
            "svc/default/web, has no dnat rule",
        ),
    ],
)
def test_a_gap_on_a_way_from_outside_in_nftables(
    service: Service, words: tuple[str, ...], missing: str
) -> None:
    """The map of node ports is another than that of addresses."""
    text = without(OUTER_NFTABLES, *words)
    nft = replace(service, mode="nftables")
    assert gap({"nft": text}, nft, forwarded=True) == (missing,)


@pytest.mark.parametrize(
    ("text", "own", "missing"),
    [
        (IPVS, [], "no interface has 10.96.0.10, without which IPVS does not get it"),
        (
            without(IPVS, "-t 10.96.0.10:80 "),
            OWN,
            "IPVS has no virtual server for 10.96.0.10:80/tcp",
        ),
        (
            without(IPVS, "-a -t"),
            OWN,
            "the virtual server for 10.96.0.10:80/tcp leads to no endpoint",
        ),
        (
            without(IPVS, "-a -t", "10.244.0.5").replace("5:8080 -m -w 1", "5:8080 -m -w 0"),
            OWN,
            "the virtual server for 10.96.0.10:80/tcp gives 10.244.1.5:8080 weight 0",
        ),
    ],
)
def test_the_first_gap_in_ipvs(text: str, own: list[dict[str, Any]], missing: str) -> None:
    """The address, the virtual server, or one with a weight behind it."""
    facts = {"ipvs": text, "addresses": own}
    assert gap(facts, IPVS_SERVICE, forwarded=True) == (missing,)
