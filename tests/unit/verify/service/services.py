"""Services as a status tells of them, and what native tools print of their rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testbed.verify.service import iptables, ipvs, nftables
from testbed.verify.service.facts import facts
from testbed.verify.service.tree import View

GOLDEN = Path(__file__).parents[3] / "golden" / "service"


def entry(name: str, address: str, node_port: int, pods: Sequence[int], **more: Any) -> Any:
    """An entry of ``services``: port 80 at ``address``, with the pods of these numbers."""
    places = (("10.244.0.5", "node1"), ("10.244.1.2", "node2"), ("10.244.1.3", "node2"))
    return {
        "namespace": "ns1",
        "name": name,
        "type": "NodePort",
        "cluster_ip": address,
        "external_ips": [],
        "load_balancer_ip": "",
        "ports": [
            {"name": "", "protocol": "TCP", "port": 80, "target_port": 8080, "node_port": node_port}
        ],
        "endpoints": [
            {
                "address": places[number][0],
                "port": 8080,
                "port_name": "",
                "protocol": "TCP",
                "node": places[number][1],
                "pod": f"ns1/web-{number + 1}",
                "ready": True,
                "serving": True,
                "terminating": False,
            }
            for number in pods
        ],
        "selector": {},
        "external_traffic_policy": "Cluster",
        "internal_traffic_policy": "Cluster",
        "session_affinity_seconds": None,
        **more,
    }


WEB = entry(
    *("web", "10.96.0.41", 30080, (0, 1, 2)),
    type="LoadBalancer",
    external_ips=["192.0.2.10"],
    load_balancer_ip="198.51.100.7",
)
LOCAL = entry(
    *("local", "10.96.0.42", 30081, (0, 1)),
    external_traffic_policy="Local",
    session_affinity_seconds=10800,
)
EMPTY = entry("empty", "10.96.0.43", 30082, ())
OTHER = entry("other", "10.96.0.99", 30099, ())
BY_NAME = {each["name"]: each for each in (WEB, LOCAL, EMPTY, OTHER)}

_READERS = {
    "iptables": ("iptables-save.txt", iptables.view),
    "nftables": ("nft-list.txt", nftables.view),
    "ipvs": ("ipvs.txt", ipvs.view),
}


def view(mode: str, name: str) -> View:
    """The chains of a Service out of what was printed on a node."""
    file, reader = _READERS[mode]
    return reader((GOLDEN / file).read_text(), facts(BY_NAME[name]), "node1")
