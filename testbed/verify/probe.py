"""Running a check: one request to every node's agent at once, then the judgement."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from testbed.node import archive
from testbed.node.container import execute
from testbed.node.parallel import each
from testbed.topology.model import Cluster
from testbed.verify import check, oracle
from testbed.verify.observed import Observed
from testbed.verify.packet import VXLAN_PORTS, Frame, read_pcap
from testbed.verify.report import Finding, Report

if TYPE_CHECKING:
    import docker

__all__ = ["run"]

_SECONDS = 5.0
_UPLINK = "eth0"


def run(
    client: docker.DockerClient,
    cluster: Cluster,
    containers: Mapping[str, str],
    observed: Observed,
    seconds: float = _SECONDS,
) -> Report:
    """Check all pod pairs and every node pair's frames; ``containers`` maps nodes that run.

    ``seconds`` bounds the probing on each node.

    Raises:
        NodeError: an agent could not be asked.
    """
    expectations = check.expect(cluster, observed)
    encapsulation = oracle.encapsulation(cluster)
    ports = VXLAN_PORTS | ({encapsulation.port} if encapsulation else set())
    marker = secrets.token_hex(8)

    def ask(item: tuple[str, str]) -> tuple[Mapping[int, Any], tuple[Frame, ...]]:
        node, container = item
        request = check.request(expectations, node, marker, _UPLINK, seconds)
        if not request["probes"]:
            return {}, ()
        word = archive.deliver(client, container, json.dumps(request))
        output = execute(client, container, ["testbed-agent", "probe", word])
        answer = json.loads(output)
        frames = tuple(read_pcap(base64.b64decode(answer["pcap"]), ports))
        return {result["id"]: result for result in answer["results"]}, frames

    results: dict[int, Any] = {}
    captured: dict[str, tuple[Frame, ...]] = {}
    for (node, _), (answers, frames) in zip(
        containers.items(), each(ask, containers.items()), strict=True
    ):
        results |= answers
        captured[node] = frames
    findings: list[Finding] = [
        *check.judge_nodes(cluster, observed),
        *check.judge_pods(cluster, observed),
    ]
    for expectation in expectations:
        findings += check.judge(
            expectation,
            results.get(expectation.identity),
            captured.get(expectation.node, ()),
            marker,
            observed,
        )
    return Report(tuple(findings), str(encapsulation or "none"))
