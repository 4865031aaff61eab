"""What a document of Services must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbed.agent.errors import AgentError
from testbed.agent.service_document import check, load

GOOD: dict[str, Any] = {
    "mode": "iptables",
    "generation": "g1",
    "serial": 1,
    "units": {"": {"iptables": ""}},
}


def test_what_may_be_left_out() -> None:
    """Without a base, a document is everything."""
    checked = check(GOOD)
    assert checked["base"] is None
    assert checked["processes"] == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"base": ""}, "'generation' and 'base' must be text that is not empty"),
        ({"generation": ""}, "'generation' and 'base' must be text that is not empty"),
        ({"serial": "1"}, "'serial' must be of type int"),
        ({"mode": "../x"}, "mode '../x' is not a name"),
        ({"units": []}, "'units' must be of type dict"),
        ({"units": {"a": None}}, "name of a Service in units '' is not a name"),
        ({"units": {"": {"iptables": 1}}}, "iptables of unit '' must be text"),
        ({"units": {"": {"nft": ""}}}, "nft of unit '' must be an object"),
        ({"units": {"": {"pf": ""}}}, "unit '' has 'pf'; known are iptables, ipset, nft"),
        ({"inputs": {"../../x": {}}}, "is not a name"),
        ({"files": [{"path": "a", "content": "", "mode": 1}]}, "'a' is not absolute"),
        ({"files": [{"path": "/a", "content": "", "mode": "1"}]}, "must be text and a number"),
        ({"processes": [{"name": "a b", "argv": ["x"]}]}, "process name 'a b' is not a name"),
        ({"conntrack": [["-F"]]}, "conntrack -F does not delete"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], why: str) -> None:
    """The document is refused before anything is touched."""
    with pytest.raises((TypeError, ValueError)) as error:
        check({**GOOD, **change})
    assert why in str(error.value)


def test_a_file_that_is_no_document(tmp_path: Path) -> None:
    """The error has the path, and what is missing."""
    path = tmp_path / "document.json"
    path.write_text("{}")
    with pytest.raises(AgentError, match="missing key 'mode'"):
        load(str(path))
    with pytest.raises(AgentError, match="cannot read the services document"):
        load(str(tmp_path / "none.json"))
