"""The same 72 requests in every mode of kube-proxy: they agree but for what docs/services.md lists.

Six sources ask twelve addresses. An outcome is whether and by whom a request was answered, and
whom the endpoint saw; addresses are compared by whose they are, since each mode has its testbed.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from testbed.dataplane.features import Features
from tests.live.asking import Addresses, Answer
from tests.live.conftest import Lasting
from tests.live.test_services import HTTP, Served

SOURCES = ("caller", "near", "third", "node1", "node3", "client")
TARGETS = (
    *("far", "near", "local", "inside", "empty", "unused port"),
    *("far at node1", "local at node1", "local at node3", "far at localhost"),
    *("balanced's balancer", "kept's balancer"),
)
PODS = ("caller", "near", "third")
DIFFERENCES = {
    # nftables refuses what a Service does not listen on; iptables lets it go to the default route.
    **{(source, "unused port"): {"iptables"} for source in SOURCES},
    # Only iptables answers on 127.0.0.1: pods have one of their own, and so has the client.
    **{(source, "far at localhost"): {"iptables"} for source in ("node1", "node3")},
    # A node's own connection to a balancer's address, with no endpoint of its own: nftables drops.
    ("node3", "kept's balancer"): {"nftables"},
    # ipvs answers from other nodes where Local leaves none; a local-only cluster IP has no servers.
    **{
        (source, "local at node3"): {"ipvs"}
        for source in SOURCES
        if source not in ("third", "node3")
    },
    **{(source, "inside"): {"ipvs"} for source in ("third", "node3")},
}
"""Request → the modes whose outcome is their own."""

_Outcomes = dict[tuple[str, str], Answer]
Ask = Callable[[str], _Outcomes]


@pytest.fixture(scope="module")
def outcomes(lasting: Lasting) -> dict[str, _Outcomes]:
    """Mode → what became of every request, asked when first wanted."""
    return {}


@pytest.fixture
def ask(lasting: Lasting, outcomes: dict[str, _Outcomes]) -> Ask:
    """Ask all requests in a mode, once."""

    def asked(mode: str) -> _Outcomes:
        if mode not in outcomes:
            with lasting("services-flannel", f"matrix-{mode}", proxy=mode) as testbed:
                route = ("ip", "route", "add", str(testbed.cluster.service_cidr))
                testbed.clients["client"].run(*route, "via", str(testbed.nodes["node1"].ip))
                for node in testbed.nodes.values():
                    node.run("sysctl", "-w", "net.ipv4.icmp_ratelimit=0")
                outcomes[mode] = _ask(Served(testbed, mode, "flannel", Addresses(testbed)))
        return outcomes[mode]

    return asked


def _ask(served: Served) -> _Outcomes:
    services = {each["name"]: each for each in served.testbed.status()["services"]}
    nodes = {name: str(node.ip) for name, node in served.testbed.nodes.items()}

    def where(target: str) -> tuple[str, int]:
        name, _, place = target.replace("'s balancer", " at balancer").partition(" at ")
        if target == "unused port":
            return services["far"]["cluster_ip"], 81
        if place == "balancer":
            return services[name]["load_balancer_ip"], HTTP
        if not place:
            return services[name]["cluster_ip"], HTTP
        return nodes.get(place, "127.0.0.1"), services[name]["ports"][0]["node_port"]

    requests = [(source, target) for source in SOURCES for target in TARGETS]
    with ThreadPoolExecutor(6) as pool:
        answers = pool.map(partial(_one, served, where), requests)
        return dict(zip(requests, answers, strict=True))


def _one(
    served: Served, where: Callable[[str], tuple[str, int]], request: tuple[str, str]
) -> Answer:
    source, target = request
    answer = served.ask(source, *where(target))
    if answer.outcome != "answered":
        return answer
    if target.startswith(("local", "kept")):
        # Either of two endpoints, by chance or by election; masqueraded, each has its own view.
        kept = source == answer.client == "client"
        return Answer("answered", "near or far", "client" if kept else "")
    if source == "client" and target == "balanced's balancer":
        return Answer("answered", answer.host, f"elected{answer.client[5:]}")
    return answer


@pytest.mark.parametrize("mode", ["nftables", "ipvs"])
def test_modes_agree(ask: Ask, able: Features, mode: str) -> None:
    """With iptables, the mode whose behaviour Kubernetes documents."""
    if mode == "ipvs" and not able.ip_vs:
        pytest.skip("this kernel has no ip_vs")
    reference, other = ask("iptables"), ask(mode)
    differing = {
        request: (reference[request], other[request])
        for request in reference
        if reference[request] != other[request]
    }
    unexpected = {
        request: both
        for request, both in differing.items()
        if not DIFFERENCES.get(request, set()) & {"iptables", mode}
    }
    assert not unexpected
    # Towards a gateway that nobody has, a node says "unreachable" once its ARP requests failed,
    # which looks like a refusal: a difference is told of an address, not of every source.
    listed = {target for (_, target), whose in DIFFERENCES.items() if whose & {"iptables", mode}}
    missing = listed - {target for _, target in differing}
    assert not missing, "docs/services.md lists differences that are none"
    assert sum(answer.outcome == "answered" for answer in reference.values()) > 36
