"""``testbed service``: the chains that it shows are the kernel's, and they count."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.cli.main import main
from testbed.dataplane.features import Features
from tests.live.conftest import Lasting, Running

MODES = ["iptables", "nftables", "ipvs"]
_REQUESTS = 30
_LABELS = {"app": "seen"}
_MANIFESTS: tuple[dict[str, Any], ...] = (
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "seen"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": _LABELS},
            "template": {
                "metadata": {"labels": _LABELS},
                "spec": {"containers": [{"name": "netexec", "image": "netexec"}]},
            },
        },
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "seen"},
        "spec": {
            "type": "NodePort",
            "selector": _LABELS,
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    },
)


@pytest.fixture(scope="module", params=MODES)
def testbed(request: pytest.FixtureRequest, lasting: Lasting, able: Features) -> Iterator[Running]:
    """Two nodes, and a Service with three pods."""
    if request.param == "ipvs" and not able.ip_vs:
        pytest.skip("this kernel has no ip_vs")
    with lasting("flannel", f"view-{request.param}", nodes=2, proxy=request.param) as found:
        found.apply(*_MANIFESTS)
        yield found


def shown(testbed: Running, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """``testbed service seen -o json``."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["service", "seen", "--name", testbed.name, "-o", "json"])
    assert not caught.value.code
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def test_shares_add_up_and_lead_to_the_pods(
    testbed: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each chain that balances hands on all, and its ends are the Service's three pods."""
    view = shown(testbed, capsys)
    shares = [
        [rule["share"] for rule in chain["rules"] if rule["share"] is not None]
        for chain in view["chains"]
    ]
    assert any(shares)
    assert all(sum(each) == pytest.approx(1, abs=1e-5) for each in shares if each)
    ends = [rule["endpoint"] for chain in view["chains"] for rule in chain["rules"]]
    pods = {each["pod"] for each in ends if each}
    assert pods == {each["pod"] for each in view["service"]["endpoints"]}
    assert len(pods) == 3


def test_counters_rise_with_connections(
    testbed: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many as there were, where the mode counts; nftables has no counters."""
    before = _counted(shown(testbed, capsys))
    address = testbed.status()["services"][0]["cluster_ip"]
    loop = f"for i in $(seq {_REQUESTS}); do curl -s -m 2 -o /dev/null http://{address}/; done"
    testbed.nodes["node1"].run("sh", "-c", loop, seconds=90)
    view = shown(testbed, capsys)
    after = _counted(view)
    if view["mode"] == "nftables":
        assert before == after == 0
    elif view["mode"] == "iptables":
        assert after - before == _REQUESTS
    else:
        assert after - before >= _REQUESTS


def _counted(view: dict[str, Any]) -> int:
    """Packets that were sent to endpoints."""
    rules = [rule for chain in view["chains"] for rule in chain["rules"]]
    return sum(rule["packets"] or 0 for rule in rules if rule["endpoint"])
