"""The layer table of docs/architecture.md, enforced by reading every module's imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "testbed"

MAY_IMPORT = {
    "errors": set(),
    "collection": set(),
    "topology": {"errors"},
    "dataplane": {"errors"},
    "overlay": {"errors", "topology", "dataplane"},
    "bgp": {"errors", "topology", "dataplane"},
    "proxy": {"errors", "topology", "dataplane"},
    "policy": {"errors", "topology", "dataplane"},
    "announce": {"errors", "topology", "dataplane", "bgp"},
    "cni": {"errors", "topology", "dataplane", "overlay", "bgp", "policy"},
    "plan": {"errors", "topology", "dataplane", "overlay", "bgp", "proxy", "policy", "cni"},
    "node": {"errors", "topology", "dataplane"},
    "agent": set(),
    "packets": {"errors", "collection", "agent"},
    "verify": {"errors", "topology", "dataplane", "packets", "node", "agent"},
    "services": {"errors", "topology", "dataplane", "plan", "announce", "node"},
    "existing": {"errors", "topology", "node", "services"},
    "lifecycle": {"errors", "topology", "dataplane", "plan", "node", "verify", "existing"}
    | {"services"},
    "applying": {
        "errors",
        "collection",
        "topology",
        "dataplane",
        "plan",
        "node",
        "existing",
        "services",
    },
    "target": {"errors", "topology", "node", "existing"},
    "tracing": {"errors", "topology", "node", "existing", "services", "verify"},
    "flight_recorder": {"errors", "topology", "packets", "node"},
    "flight_folder": {"errors", "packets", "flight_recorder", "agent"},
    "api": {"errors", "topology", "plan", "packets", "node", "verify", "existing", "lifecycle"}
    | {"target", "tracing", "applying"},
    "cli": {"errors", "topology", "dataplane", "plan", "packets", "node", "verify", "existing"}
    | {"lifecycle", "target", "tracing", "applying"},
    "pytest_recorder": {"flight_folder", "flight_recorder"},
    "pytest_plugin": {"errors", "packets", "node", "existing", "api", "pytest_recorder"},
}
"""Package → the testbed packages it may import besides itself."""

ONLY_IN = {
    "docker": {"node"},
    "dpkt": {"packets"},
    "yaml": {"topology"},
    "rich": {"cli"},
    "testinfra": {"api"},
    "pytest": {"pytest_plugin", "pytest_recorder"},
}
"""Third-party library → the packages that may import it (for type checking, anybody may)."""

MODULES = sorted(ROOT.rglob("*.py"))
MOST_LINES = 350


def layer(path: Path) -> str:
    """The first part of a module's path below ``testbed``."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def runtime_imports(tree: ast.Module) -> Iterator[str]:
    """Absolute names that a module imports when it runs."""
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_layers(path: Path) -> None:
    """A module imports only what the layer table lets it."""
    own = layer(path)
    if own == "__init__":
        return
    for name in runtime_imports(ast.parse(path.read_text())):
        parts = name.split(".")
        if (
            parts[0] == "testbed"
            and len(parts) > 1
            and (ROOT / parts[1]).exists() | (ROOT / f"{parts[1]}.py").exists()
        ):
            assert parts[1] == own or parts[1] in MAY_IMPORT[own], f"{own} imports {name}"
        if parts[0] in ONLY_IN:
            assert own in ONLY_IN[parts[0]], f"{own} imports {name}"


def test_oracle_imports_topology_only() -> None:
    """The oracle shares no code with the planners that it judges."""
    tree = ast.parse((ROOT / "verify" / "oracle.py").read_text())
    inside = {name for name in runtime_imports(tree) if name.startswith("testbed")}
    assert all(name.startswith("testbed.topology") for name in inside)


def test_host_and_agent_share_formats_and_words_only() -> None:
    """pcapng and pcap, and what ICMP errors say; nothing else of the agent is imported."""
    for path in MODULES:
        if layer(path) == "agent":
            continue
        imported = set(runtime_imports(ast.parse(path.read_text())))
        shared = {each.split(".")[2] for each in imported if each.startswith("testbed.agent.")}
        assert shared <= {"icmp", "pcap", "pcapng"}, path


def test_agent_imports_the_standard_library_only() -> None:
    """The node image holds a copy of this package alone."""
    import sys

    for path in (ROOT / "agent").glob("*.py"):
        for name in runtime_imports(ast.parse(path.read_text())):
            assert name.split(".")[0] in sys.stdlib_module_names, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_and_sizes(path: Path) -> None:
    """No module has a name that says nothing, and none is too long to read at a sitting."""
    banned = {"core", "base", "utils", "common", "helpers", "manager", "factory"}
    assert not banned & {*path.relative_to(ROOT).with_suffix("").parts}
    assert len(path.read_text().splitlines()) <= MOST_LINES
