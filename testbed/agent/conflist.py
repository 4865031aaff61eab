"""CNI network configuration lists: finding, validating and deriving what a plugin reads.

CNI specification 1.1.0, sections 1 ("Network configuration format") and 3 ("Execution of network
configurations"), as libcni implements them. Pure but for :func:`load`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .errors import AgentError

__all__ = ["Network", "at_least", "execution_config", "load", "parse"]

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")


class Network(NamedTuple):
    """A validated network configuration list."""

    name: str
    version: str
    """The highest of ``cniVersion`` and ``cniVersions`` that this runtime speaks."""
    plugins: tuple[dict[str, Any], ...]
    disable_check: bool
    source: str
    """The file as it was read: the cache keeps it, so that DEL works after the file changed."""
    path: str = ""


def at_least(version: str, minimum: str) -> bool:
    """Whether a configuration's version is ``minimum`` or newer."""
    return _numbers(version) >= _numbers(minimum)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def load(directory: str) -> Network:
    """Read the first configuration of ``directory`` by name, as containerd does (max_conf_num 1).

    Raises:
        AgentError: there is none, or it is not valid.
    """
    suffixes = (".conflist", ".conf", ".json")
    try:
        paths = sorted(path for path in Path(directory).iterdir() if path.suffix in suffixes)
    except OSError as error:
        raise AgentError("no CNI configuration", directory, error.strerror or str(error)) from None
    if not paths:
        raise AgentError("no CNI configuration", directory, "no *.conflist, *.conf or *.json file")
    return parse(paths[0].read_text(encoding="utf-8"), str(paths[0]))


def parse(source: str, path: str = "") -> Network:
    """Validate the text of a configuration; a single plugin's configuration is wrapped in a list.

    Raises:
        AgentError: it is not a valid configuration; the message says which key and why.
    """
    try:
        config = json.loads(source)
    except ValueError as error:
        raise _invalid(path, f"not JSON: {error}") from None
    if not isinstance(config, dict):
        raise _invalid(path, "not a JSON object")
    if "plugins" not in config:
        if "type" not in config:
            raise _invalid(path, "neither 'plugins' nor 'type' is present")
        config = {
            "name": config.get("name"),
            "cniVersion": config.get("cniVersion", "0.2.0"),
            "plugins": [config],
        }
    name = config.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise _invalid(path, f"'name' must match {NAME.pattern}, not {name!r}")
    return Network(
        name=name,
        version=_version(config, path),
        plugins=_plugins(config, path),
        disable_check=_flag(config, "disableCheck", path),
        source=source,
        path=path,
    )


def _invalid(path: str, why: str) -> AgentError:
    return AgentError("invalid CNI configuration", path, why)


def _version(config: dict[str, Any], path: str) -> str:
    offered: list[str] = [config.get("cniVersion", "0.1.0"), *config.get("cniVersions", [])]
    known = [version for version in offered if version in SUPPORTED]
    if not known:
        raise _invalid(path, f"'cniVersion' {offered[0]!r} is none of {', '.join(SUPPORTED)}")
    return max(known, key=_numbers)


def _plugins(config: dict[str, Any], path: str) -> tuple[dict[str, Any], ...]:
    plugins = config["plugins"]
    if not isinstance(plugins, list) or not plugins:
        raise _invalid(path, "'plugins' must be a list of at least one plugin")
    for index, plugin in enumerate(plugins):
        kind = plugin.get("type") if isinstance(plugin, dict) else None
        if not isinstance(kind, str) or not kind or "/" in kind:
            raise _invalid(path, f"'plugins[{index}].type' must name an executable, not {kind!r}")
        if not isinstance(plugin.get("capabilities", {}), dict):
            raise _invalid(path, f"'plugins[{index}].capabilities' must be an object")
    return tuple(plugins)


def _flag(config: dict[str, Any], key: str, path: str) -> bool:
    value = config.get(key, False)
    if value in ("true", "false"):  # libcni accepts the words as strings, too
        return bool(value == "true")
    if not isinstance(value, bool):
        raise _invalid(path, f"'{key}' must be true or false, not {value!r}")
    return value


def execution_config(
    network: Network,
    plugin: dict[str, Any],
    capabilities: Mapping[str, Any],
    previous: dict[str, Any] | None,
) -> dict[str, Any]:
    """What one plugin of the list reads (specification section 3, "Deriving").

    ``name`` and ``cniVersion`` are the list's; ``capabilities`` is taken away, and those declared
    true that the runtime has an argument for become ``runtimeConfig``; ``previous`` is the
    ``prevResult``.
    """
    config = {key: value for key, value in plugin.items() if key != "capabilities"}
    config["name"] = network.name
    config["cniVersion"] = network.version
    declared = plugin.get("capabilities", {})
    runtime = {key: value for key, value in capabilities.items() if declared.get(key) is True}
    if runtime:
        config["runtimeConfig"] = runtime
    if previous is not None:
        config["prevResult"] = previous
    return config
