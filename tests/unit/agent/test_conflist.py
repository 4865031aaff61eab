"""Finding, checking and deriving CNI configurations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed.agent.conflist import at_least, execution_config, load, parse
from testbed.agent.errors import AgentError

VALID = {"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "-bad"}, "'name' must match"),
        ({"name": None}, "'name' must match"),
        ({"cniVersion": "9.9.9"}, "'cniVersion' '9.9.9' is none of"),
        ({"plugins": []}, "'plugins' must be a list of at least one plugin"),
        ({"plugins": [{}]}, "'plugins[0].type' must name an executable, not None"),
        ({"plugins": [{"type": "../x"}]}, "'plugins[0].type' must name an executable"),
        ({"plugins": [{"type": "a", "capabilities": []}]}, "'plugins[0].capabilities'"),
        ({"disableCheck": "yes"}, "'disableCheck' must be true or false, not 'yes'"),
    ],
)
def test_bad_configurations_say_why(change: dict[str, object], why: str) -> None:
    """Every mistake names its key."""
    with pytest.raises(AgentError) as caught:
        parse(json.dumps({**VALID, **change}), "/etc/cni/net.d/1.conflist")
    assert why in caught.value.why
    assert caught.value.where == "/etc/cni/net.d/1.conflist"


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_what_is_no_configuration(text: str) -> None:
    """Other JSON is refused."""
    with pytest.raises(AgentError, match="invalid CNI configuration"):
        parse(text)


def test_a_single_plugin_is_wrapped_in_a_list() -> None:
    """A *.conf file holds one plugin without a list."""
    network = parse('{"name": "n", "cniVersion": "0.3.1", "type": "ptp", "mtu": 1400}')
    assert (network.name, network.version) == ("n", "0.3.1")
    assert [plugin["type"] for plugin in network.plugins] == ["ptp"]


def test_the_highest_known_version_is_used() -> None:
    """Of cniVersion and cniVersions, what both sides know."""
    network = parse(json.dumps({**VALID, "cniVersions": ["0.4.0", "1.1.0", "7.0.0"]}))
    assert network.version == "1.1.0"
    assert at_least("1.0.0", "0.4.0")
    assert not at_least("0.3.1", "0.4.0")


def test_the_first_file_by_name_wins(tmp_path: Path) -> None:
    """Other files, and later ones, are not read."""
    (tmp_path / "00-notes.txt").write_text("not a configuration")
    (tmp_path / "20-b.conflist").write_text("{")
    (tmp_path / "10-a.conf").write_text('{"name": "first", "type": "ptp"}')
    assert load(str(tmp_path)).name == "first"


def test_no_configuration_is_an_error(tmp_path: Path) -> None:
    """An empty and a missing directory."""
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(AgentError, match="no CNI configuration"):
            load(str(directory))


def test_a_plugin_gets_only_what_it_declares() -> None:
    """Capabilities become runtimeConfig; name and version are the list's."""
    plugin = {"type": "portmap", "name": "x", "capabilities": {"portMappings": True, "mac": False}}
    network = parse(json.dumps({**VALID, "plugins": [plugin]}))
    given = {"portMappings": [1], "mac": "aa", "bandwidth": {}}
    assert execution_config(network, network.plugins[0], given, {"ips": []}) == {
        "type": "portmap",
        "name": "net",
        "cniVersion": "1.0.0",
        "runtimeConfig": {"portMappings": [1]},
        "prevResult": {"ips": []},
    }
    assert "runtimeConfig" not in execution_config(network, network.plugins[0], {}, None)
