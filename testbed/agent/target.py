"""``[NAMESPACE/]POD[:CONTAINER]``: finding a container in the node's state."""

from __future__ import annotations

from typing import Any, NamedTuple

from . import state
from .errors import AgentError
from .layout import STATE

__all__ = ["MissingError", "Target", "find", "parse", "resolve"]


class MissingError(AgentError):
    """There is no such pod or container; the message lists what there is."""


class Target(NamedTuple):
    """A parsed name; ``container`` may be empty: the pod's first."""

    namespace: str
    pod: str
    container: str


def parse(text: str) -> Target:
    """Split a name; the namespace is ``default`` unless given."""
    rest, _, container = text.partition(":")
    namespace, slash, pod = rest.partition("/")
    return Target(namespace, pod, container) if slash else Target("default", rest, container)


def find(text: str, node: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod and the container that ``text`` names, as entries of the node's state.

    Raises:
        MissingError: there is none.
    """
    target = parse(text)
    for pod in node["pods"]:
        if (pod["namespace"], pod["name"]) != (target.namespace, target.pod):
            continue
        for container in pod["containers"]:
            if target.container in ("", container["name"]):
                return pod, container
        names = ", ".join(container["name"] for container in pod["containers"])
        raise MissingError(f"no container {target.container!r}", text, f"the pod has {names}")
    keys = [f"{pod['namespace']}/{pod['name']}" for pod in node["pods"]]
    there = f"the node has {', '.join(keys)}" if keys else "the node has no pods"
    raise MissingError(f"no pod {target.namespace}/{target.pod}", text, there)


def resolve(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """:func:`find` in this node's state file.

    Raises:
        AgentError: there is no state, or no such pod or container (:class:`MissingError`).
    """
    node = state.read()
    if node is None:
        raise AgentError("the node has no state yet", STATE, "the agent has not booted")
    return find(text, node)
