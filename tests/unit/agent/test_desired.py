"""Reading specs: what a spec must be before its names become paths and arguments."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from testbed.agent.desired import changed_pods, parse
from testbed.agent.errors import AgentError
from tests.unit.agent.fakes import container_spec, pod_spec


def text(*pods: dict[str, Any]) -> str:
    """A spec with pods."""
    return json.dumps({"testbed": "t", "node": "n", "pods": pods})


def test_a_spec_and_its_hash() -> None:
    """The hash is of the text; what is left out gets its default."""
    small = {"namespace": "d", "name": "a", "uid": "u", "hostname": "a"}
    given = text({**small, "containers": [{"name": "c", "argv": ["x"]}]})
    wanted = parse(given)
    assert wanted.sha256 == hashlib.sha256(given.encode()).hexdigest()
    assert wanted.pods[0]["restart_policy"] == "Always"
    assert wanted.pods[0]["containers"][0]["working_dir"] == "/"


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        (pod_spec("../etc"), "pod name '../etc' is not a name"),
        (pod_spec("a", namespace="A"), "namespace 'A' is not a name"),
        (pod_spec("a", uid="x/y"), "uid of pod default/a 'x/y' is not a name"),
        (pod_spec("a", hostname=""), "hostname of pod default/a '' is not a name"),
        (pod_spec("a", restart_policy="x"), "must be one of Always, OnFailure, Never"),
        (pod_spec("a", containers=[]), "pod default/a has no containers"),
        (
            pod_spec("a", containers=[container_spec("c"), container_spec("c")]),
            "container c of pod default/a is there twice",
        ),
        (pod_spec("a", containers=[{"name": "c", "argv": "x"}]), "must be a list of text"),
        (pod_spec("a", containers=[{"name": "c"}]), "missing key 'argv'"),
        ({"name": "a"}, "missing key 'namespace'"),
    ],
)
def test_bad_pods(pod: dict[str, Any], why: str) -> None:
    """The reason names pod and key."""
    with pytest.raises(AgentError) as caught:
        parse(text(pod), "/new.json")
    assert why in caught.value.why
    assert caught.value.where == "/new.json"


@pytest.mark.parametrize("given", ["{", "[]", "3", '{"testbed": 1, "node": "n"}', '{"node": "n"}'])
def test_what_is_no_spec(given: str) -> None:
    """Other JSON, or none."""
    with pytest.raises(AgentError, match="the node's spec is not"):
        parse(given)


def test_pods_are_there_once() -> None:
    """Two pods of one name."""
    with pytest.raises(AgentError, match="pod default/a is there twice"):
        parse(text(pod_spec("a"), pod_spec("a")))


def test_which_pods_change() -> None:
    """Removed newest first, created in order; labels and annotations do not count."""
    have = {name: pod_spec(name) for name in "abcd"}
    want = {
        "b": pod_spec("b", labels={"x": "y"}),
        "e": pod_spec("e"),
        "c": pod_spec("c", hostname="other"),
        "d": pod_spec("d", annotations={"x": "y"}),
    }
    assert changed_pods(have, want) == (["c", "a"], ["e", "c"])
