"""What the host wants this node to hold: reading and checking a spec, comparing pods."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .errors import AgentError

try:  # hashlib loads OpenSSL: 3 MiB of memory for one hash
    from _sha256 import sha256  # type: ignore[import-not-found]
except ImportError:  # Python 3.12 and newer
    from hashlib import sha256

__all__ = [
    "LABEL",
    "Desired",
    "changed_pods",
    "check_name",
    "check_processes",
    "check_texts",
    "keep",
    "kept",
    "load",
    "parse",
    "pod_key",
]

LABEL = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
UID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
KINDS = ("link", "address", "route", "neighbour", "fdb")
TOOLS = ("iptables-restore", "ipset", "wg", "nft")
POLICIES = ("Always", "OnFailure", "Never")


class Desired(NamedTuple):
    """A checked NodeSpec as JSON, and the SHA-256 of its text."""

    spec: dict[str, Any]
    sha256: str

    @property
    def pods(self) -> list[dict[str, Any]]:
        """The PodSpecs, in creation order."""
        pods: list[dict[str, Any]] = self.spec["pods"]
        return pods


def pod_key(pod: Mapping[str, Any]) -> str:
    """``namespace/name``."""
    return f"{pod['namespace']}/{pod['name']}"


def keep(spec: Mapping[str, Any], path: str) -> None:
    """Write ``spec`` to ``path`` atomically."""
    fresh = Path(f"{path}.new")
    fresh.parent.mkdir(parents=True, exist_ok=True)
    fresh.write_text(json.dumps(spec), encoding="utf-8")
    fresh.rename(path)


def kept(path: str) -> dict[str, Any] | None:
    """The spec that :func:`keep` wrote to ``path``, if any."""
    try:
        spec = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return spec if isinstance(spec, dict) else None


def load(path: str) -> Desired:
    """Read and check the spec at ``path``.

    Raises:
        AgentError: it cannot be read or is not a NodeSpec.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AgentError("cannot read the node's spec", path, str(error)) from None
    return parse(text, path)


def parse(text: str, path: str = "") -> Desired:
    """Check the text of a spec: names become paths and arguments, so they must be names.

    Raises:
        AgentError: it is not a NodeSpec; the reason says which pod and key.
    """
    try:
        spec = json.loads(text)
    except ValueError as error:
        raise AgentError("the node's spec is not JSON", path, str(error)) from None
    try:
        _check(spec)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = f"missing key {error}" if isinstance(error, KeyError) else str(error)
        raise AgentError("the node's spec is not valid", path, why) from None
    return Desired(spec, sha256(text.encode()).hexdigest())


def _check(spec: Any) -> None:
    if not isinstance(spec, dict):
        raise TypeError("not a JSON object")
    for key in ("testbed", "node"):
        if not isinstance(spec[key], str):
            raise TypeError(f"{key!r} must be text")
    for key in ("pods", "tunnels", "processes"):
        spec.setdefault(key, [])
    _check_node(spec)
    seen: set[str] = set()
    for pod in spec["pods"]:
        _check_pod(pod)
        if pod_key(pod) in seen:
            raise ValueError(f"pod {pod_key(pod)} is there twice")
        seen.add(pod_key(pod))


def _check_node(spec: dict[str, Any]) -> None:
    """What is not a pod; what the agent does not know it would leave out, or fail on too late."""
    for item in spec.get("objects", ()):
        _one_of(item["kind"], KINDS, f"kind of object {item['key']}")
    for item in spec.get("rulesets", ()):
        _one_of(item["tool"], TOOLS, f"tool of ruleset {item['name']}")
    for tunnel in spec["tunnels"]:
        for key in ("name", "uplink"):
            check_name(tunnel[key], INTERFACE, f"{key} of a tunnel")
    if len(spec["tunnels"]) > 1:
        raise ValueError("more than one tunnel")
    check_processes(spec["processes"])


def check_processes(processes: Any) -> None:
    """Check the daemons of a spec, and put in what may be left out.

    Raises:
        KeyError: a key is missing.
        ValueError: something is not a name or not a list of text.
    """
    seen: set[str] = set()
    for process in processes:
        check_name(process["name"], LABEL, "process name")
        name = process["name"]
        _argv(process["argv"], f"argv of process {name}")
        for key in ("reload", "files"):
            check_texts(process.setdefault(key, []), f"{key} of process {name}")
        if name in seen:
            raise ValueError(f"process {name} is there twice")
        seen.add(name)


def _check_pod(pod: dict[str, Any]) -> None:
    check_name(pod["namespace"], LABEL, "namespace")
    check_name(pod["name"], LABEL, "pod name")
    key = pod_key(pod)
    check_name(pod["uid"], UID, f"uid of pod {key}")
    check_name(pod["hostname"], LABEL, f"hostname of pod {key}")
    defaults = {"host_network": False, "share_process_namespace": False, "restart_policy": "Always"}
    for name, value in {**defaults, "port_mappings": [], "bandwidth": {}}.items():
        pod.setdefault(name, value)
    _one_of(pod["restart_policy"], POLICIES, f"restart_policy of pod {key}")
    if not pod["containers"]:
        raise ValueError(f"pod {key} has no containers")
    seen: set[str] = set()
    for container in pod["containers"]:
        _check_container(container, key)
        if container["name"] in seen:
            raise ValueError(f"container {container['name']} of pod {key} is there twice")
        seen.add(container["name"])


def _check_container(container: dict[str, Any], key: str) -> None:
    check_name(container["name"], LABEL, f"container name in pod {key}")
    _argv(container["argv"], f"argv of container {container['name']} in pod {key}")
    container.setdefault("env", {})
    container.setdefault("image", "")
    container.setdefault("working_dir", "/")


def _argv(value: Any, what: str) -> None:
    check_texts(value, what)
    if not value:
        raise ValueError(f"{what} is empty")


def check_texts(value: Any, what: str) -> None:
    """Check a list of text.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{what} must be a list of text")


def _one_of(value: Any, known: tuple[str, ...], what: str) -> None:
    if value not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}")


def check_name(value: Any, pattern: re.Pattern[str], what: str) -> None:
    """Check a name.

    Raises:
        ValueError: it is not one.
    """
    if not isinstance(value, str) or len(value) > 253 or not pattern.fullmatch(value):
        raise ValueError(f"{what} {value!r} is not a name")


def changed_pods(
    have: Mapping[str, Mapping[str, Any]], want: Mapping[str, Mapping[str, Any]]
) -> tuple[list[str], list[str]]:
    """Keys to remove (gone or different; newest first) and keys to create (new or different).

    Labels and annotations alone do not change a running pod, as in Kubernetes.
    """
    different = {key for key in have.keys() & want.keys() if _runs(have[key]) != _runs(want[key])}
    remove = [key for key in reversed(list(have)) if key not in want or key in different]
    create = [key for key in want if key not in have or key in different]
    return remove, create


def _runs(pod: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in pod.items() if key not in ("labels", "annotations")}
