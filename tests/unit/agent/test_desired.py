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


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"processes": [{"name": "../x", "argv": ["x"]}]}, "process name '../x' is not a name"),
        ({"processes": [{"name": "x", "argv": []}]}, "argv of process x is empty"),
        ({"processes": [{"name": "x", "argv": "x"}]}, "argv of process x must be a list of text"),
        (
            {"processes": [{"name": "x", "argv": ["x"], "files": "/x"}]},
            "files of process x must be a list of text",
        ),
        (
            {"processes": [{"name": "x", "argv": ["x"], "reload": [1]}]},
            "reload of process x must be a list of text",
        ),
        ({"processes": [{"name": "x", "argv": ["x"]}] * 2}, "process x is there twice"),
        ({"tunnels": [{"name": "tunl0", "uplink": "a/b"}]}, "uplink of a tunnel 'a/b' is not"),
        ({"tunnels": [{"name": "tunl0"}]}, "missing key 'uplink'"),
        ({"tunnels": [{"name": "a", "uplink": "b"}] * 2}, "more than one tunnel"),
        ({"objects": [{"kind": "rule", "key": {}}]}, "kind of object {} must be one of link, "),
        ({"rulesets": [{"name": "a", "tool": "b"}]}, "tool of ruleset a must be one of iptables"),
    ],
)
def test_bad_parts_of_a_node(part: dict[str, Any], why: str) -> None:
    """Before anything is touched: half a spec would stay in the kernel."""
    with pytest.raises(AgentError) as caught:
        parse(json.dumps({"testbed": "t", "node": "n", "pods": [], **part}))
    assert why in caught.value.why


def test_processes_and_tunnels_are_optional() -> None:
    """Most nodes have none."""
    wanted = parse(
        json.dumps({"testbed": "t", "node": "n", "processes": [{"name": "bird", "argv": ["bird"]}]})
    )
    assert wanted.spec["tunnels"] == wanted.pods == []
    assert wanted.spec["processes"] == [
        {"name": "bird", "argv": ["bird"], "reload": [], "files": []}
    ]


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
