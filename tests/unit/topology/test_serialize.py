"""A cluster as JSON and back."""

from __future__ import annotations

import json

from hypothesis import given, settings

from testbed.topology.load import from_dict
from testbed.topology.model import Cluster
from testbed.topology.serialize import from_json, to_json
from tests.unit.topology.strategies import CNIS, clusters, wide_clusters


@settings(max_examples=50, deadline=None)
@given(clusters() | wide_clusters())
def test_round_trip(cluster: Cluster) -> None:
    """Nothing is lost on the way through text, whatever order the keys come back in."""
    text = json.dumps(to_json(cluster), sort_keys=True)
    assert from_json(json.loads(text)) == cluster


def test_keys_are_stable() -> None:
    """The same cluster gives the same bytes, with the model's keys in the model's order."""
    data = {"services": {"a": {"image": "testbed-node"}}, "x-testbed": {"cni": "flannel"}}
    cluster = from_dict(data, cnis=CNIS)
    written = to_json(cluster)
    assert list(written) == list(Cluster.__slots__)
    assert json.dumps(written) == json.dumps(to_json(from_json(written)))
    assert written["networks"] == [{"name": "default", "subnet": None}]
    assert written["nodes"][0]["pod_cidrs"] == ["10.244.0.0/24"]
