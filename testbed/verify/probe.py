"""Running a check: one request to every node's agent at once, then the judgement."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from testbed.errors import NodeError
from testbed.node import archive
from testbed.node.container import execute
from testbed.node.parallel import each
from testbed.packets import capturefile
from testbed.packets.decoder import VXLAN_PORTS
from testbed.topology.model import Cluster
from testbed.verify import check, oracle, wire
from testbed.verify.observed import Observed
from testbed.verify.report import Finding, Report

if TYPE_CHECKING:
    import docker

__all__ = ["run"]

_SECONDS = 5.0
_UPLINK = "eth0"
_NO_ANSWER: Mapping[str, Any] = {"results": [], "pcap": "", "summary": ""}


def run(
    client: docker.DockerClient,
    cluster: Cluster,
    containers: Mapping[str, str],
    observed: Observed,
    seconds: float = _SECONDS,
) -> tuple[Report, dict[str, Mapping[str, Any]]]:
    """Check all pod pairs and every node pair's frames; ``containers`` maps nodes that run.

    ``seconds`` bounds each round of probing on a node. Also returns the agents' states as they
    were after the probing, by which nodes and pods are judged. An agent that cannot be asked is a
    failed finding like any other.
    """
    expectations = check.expect(cluster, observed)
    ways = oracle.encapsulations(cluster)
    ports = VXLAN_PORTS | {way.port for way in ways if isinstance(way, oracle.Vxlan)}
    marker = secrets.token_hex(8)

    def ask(item: tuple[str, str]) -> Mapping[str, Any]:
        """What the node's agent found; where it cannot be asked, why not."""
        node, container = item
        request = check.request(cluster, observed, expectations, node, marker, _UPLINK, seconds)
        try:
            word = archive.deliver(client, container, json.dumps(request))
            limit = 75 + 2 * (seconds + 0.002 * len(request["probes"]))  # as agent/mesh.py
            answer = execute(client, container, ["testbed-agent", "probe", word], limit)
            return dict(json.loads(answer))
        except (NodeError, ValueError) as error:
            return {**_NO_ANSWER, "state": {"phase": f"not answering: {error}"}}

    answers = dict(zip(containers, each(ask, containers.items()), strict=True))
    results = {each["id"]: each for answer in answers.values() for each in answer["results"]}
    captures = {
        node: wire.Captured(
            tuple(capturefile.read(base64.b64decode(answer["pcap"]), ports)), answer["summary"]
        )
        for node, answer in answers.items()
    }
    sessions = {node: answer.get("bgp", ()) for node, answer in answers.items()}
    states = {node: answer["state"] for node, answer in answers.items()}
    now = Observed.of({node: str(ip) for node, ip in observed.node_ips.items()}, states)
    findings: list[Finding] = [
        *check.judge_nodes(cluster, now),
        *check.judge_pods(cluster, now),
        *check.judge_bgp(cluster, now, sessions),
    ]
    for expectation in expectations:
        result = results.get(expectation.identity)
        capture = captures.get(expectation.node, wire.Captured())
        findings += check.judge(expectation, result, capture, marker, observed)
    unproven = check.unproven(cluster, expectations)
    words = " and ".join(str(way or "none") for way in ways)
    return Report(tuple(findings), words or "none", unproven), states
