"""Comparing what the kernel lists with what the spec wants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from testbed.agent import reconcile as module
from testbed.agent.reconcile import covers, reconcile


@pytest.mark.parametrize(
    ("have", "want", "result"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"b": 1}, {"a": 1}, False),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}, True),
        ({"a": {"b": 1}}, {"a": {"c": 2}}, False),
        ({"a": None}, {"a": {"c": 2}}, False),
        ({"flags": ["UP", "LOWER_UP"]}, {"flags": ["UP"]}, True),
        ({"flags": ["LOWER_UP"]}, {"flags": ["UP"]}, False),
        ({"mtu": 1450}, {}, True),
    ],
)
def test_covers_is_a_subset_at_every_depth(have: Any, want: Any, result: bool) -> None:
    """The kernel reports more than anybody asks for."""
    assert covers(have, want) is result


def spec(*files: tuple[Path, str, int]) -> dict[str, Any]:
    """A node's spec with nothing but files."""
    return {
        "files": [
            {"path": str(path), "content": content, "mode": mode} for path, content, mode in files
        ],
        "objects": [],
        "sysctls": {},
        "rulesets": [],
    }


def test_files_are_written_once(tmp_path: Path) -> None:
    """A second run changes nothing."""
    path = tmp_path / "etc" / "a.conf"
    wanted = spec((path, "hello\n", 0o640))
    assert reconcile(wanted) == [f"write {path}"]
    assert path.read_text() == "hello\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert reconcile(wanted, wanted) == []


def test_a_changed_mode_is_put_right(tmp_path: Path) -> None:
    """Without writing the file again."""
    path = tmp_path / "a"
    wanted = spec((path, "x", 0o644))
    reconcile(wanted)
    path.chmod(0o600)
    assert reconcile(wanted, wanted) == [f"chmod 644 {path}"]


def test_files_of_the_previous_spec_are_removed(tmp_path: Path) -> None:
    """But not what testbed did not write."""
    old, new, foreign = tmp_path / "old", tmp_path / "new", tmp_path / "foreign"
    foreign.write_text("mine")
    before = spec((old, "x", 0o644))
    reconcile(before)
    assert reconcile(spec((new, "y", 0o644)), before) == [f"write {new}", f"remove {old}"]
    assert not old.exists()
    assert foreign.exists()


ROUTE = {
    "kind": "route",
    "key": {"dst": "10.65.1.0/26"},
    "want": {"gateway": "172.17.0.6", "dev": "eth0", "flags": []},
    "fixed": {},
    "delete": ["route delete 10.65.1.0/26"],
}


@pytest.mark.parametrize(
    ("other", "ours"),
    [
        ({}, True),
        ({"protocol": "bird"}, False),
        ({"gateway": "172.17.0.7"}, False),
        ({"type": "blackhole", "gateway": None, "dev": None}, False),
    ],
)
def test_a_route_of_somebody_else_in_the_place_of_ours_stays(
    other: dict[str, Any], ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BIRD replaces routes; a blackhole of the new spec may have the destination."""
    row: dict[str, Any] = {
        "type": "unicast",
        "dst": "10.65.1.0/26",
        "gateway": "172.17.0.6",
        "dev": "eth0",
    }
    row |= {"protocol": "boot", "flags": []}
    fed: list[bytes] = []

    def run(argv: list[str], stdin: bytes = b"") -> bytes:
        fed.append(stdin)
        return json.dumps([{**row, **other}]).encode() if "-json" in argv else b""

    monkeypatch.setattr(module, "run", run)
    assert reconcile(spec(), {"objects": [ROUTE]}) == (
        ["ip route delete 10.65.1.0/26"] if ours else []
    )
    assert fed[0] == b"route show\n"


def test_links_are_there_before_processes_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BIRD gives up routes by a tunnel that is not there yet; addresses and the rest may wait."""
    fed: list[str] = []

    def run(argv: list[str], stdin: bytes = b"") -> bytes:
        fed.append(stdin.decode())
        return b"[]" if "-json" in argv else b""

    monkeypatch.setattr(module, "run", run)
    link = {"kind": "link", "key": {"ifname": "tunl0"}, "want": {}, "fixed": {}}
    address = {**link, "kind": "address", "create": ["address replace 10.65.0.1/32 dev tunl0"]}
    wanted = spec((tmp_path / "bird.cfg", "router id 1.1.1.1;", 0o644))
    wanted["objects"] = [{**link, "create": ["link set tunl0 up"]}, address]
    module.begin(wanted)
    assert (tmp_path / "bird.cfg").exists()
    assert "link set tunl0 up\n" in fed
    assert not any("address" in lines for lines in fed)
