"""Reading and checking a document of ``testbed-agent services``.

::

    {"mode": "iptables", "base": GENERATION or null, "generation": GENERATION, "serial": NUMBER,
     "units": {"": UNIT, "ns/svc": UNIT, "ns/gone": null},
     "inputs": {"ns/svc": ANYTHING, "ns/gone": null},
     "files": [{"path", "content", "mode"}], "processes": [{"name", "argv", "reload", "files"}],
     "conntrack": [["-D", …]], "verify": false}

Without ``base``, units and inputs are everything; with it, what differs from that generation. Of
two nodes, the one with the greater serial number was told later.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .desired import LABEL, check_name, check_processes, check_texts
from .errors import AgentError

__all__ = ["check", "load"]

_TEXTS = ("iptables", "ipset")
_OBJECTS = ("nft", "ipvs")
_DEFAULTS: dict[str, Any] = {
    "base": None,
    "inputs": {},
    "files": [],
    "processes": [],
    "conntrack": [],
    "verify": False,
}


def load(path: str) -> dict[str, Any]:
    """Read and check the document at ``path``.

    Raises:
        AgentError: it cannot be read or is not a document; the reason says which part.
    """
    try:
        document = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise AgentError("cannot read the services document", path, str(error)) from None
    try:
        return check(document)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = f"missing key {error}" if isinstance(error, KeyError) else str(error)
        raise AgentError("the services document is not valid", path, why) from None


def check(given: Any) -> dict[str, Any]:
    """The document with what may be left out; names become paths and arguments.

    Raises:
        KeyError: a key is missing.
        TypeError: something is of another type.
        ValueError: something is not a name.
    """
    if not isinstance(given, dict):
        raise TypeError("not a JSON object")
    document: dict[str, Any] = {**_DEFAULTS, **given}
    check_name(document["mode"], LABEL, "mode")
    for key, kind in (
        ("generation", str),
        ("serial", int),
        ("units", dict),
        ("inputs", dict),
        ("verify", bool),
    ):
        if not isinstance(document[key], kind):
            raise TypeError(f"{key!r} must be of type {kind.__name__}")
    base = document["base"]
    if not document["generation"] or base == "" or not isinstance(base, str | None):
        raise ValueError("'generation' and 'base' must be text that is not empty, or 'base' null")
    for key in ("units", "inputs"):
        for name, value in document[key].items():
            _check_key(name, key)
            if key == "units" and value is not None:
                _check_unit(name, value)
    for file in document["files"]:
        if not Path(file["path"]).is_absolute() or ".." in Path(file["path"]).parts:
            raise ValueError(f"path of a file {file['path']!r} is not absolute")
        if not isinstance(file["content"], str) or not isinstance(file["mode"], int):
            raise TypeError(f"content and mode of file {file['path']} must be text and a number")
    check_processes(document["processes"])
    for arguments in document["conntrack"]:
        check_texts(arguments, "arguments of conntrack")
        if arguments[:1] != ["-D"]:
            raise ValueError(f"conntrack {' '.join(arguments)} does not delete")
    return document


def _check_key(name: str, where: str) -> None:
    if name:
        namespace, _, rest = name.partition("/")
        check_name(namespace, LABEL, f"namespace in {where}")
        check_name(rest, LABEL, f"name of a Service in {where}")


def _check_unit(name: str, unit: Any) -> None:
    for key, value in unit.items():
        if key in _TEXTS and not isinstance(value, str):
            raise TypeError(f"{key} of unit {name!r} must be text")
        if key in _OBJECTS and not isinstance(value, dict):
            raise TypeError(f"{key} of unit {name!r} must be an object")
        if key == "addresses":
            check_texts(value, f"addresses of unit {name!r}")
        elif key not in (*_TEXTS, *_OBJECTS):
            known = ", ".join((*_TEXTS, *_OBJECTS, "addresses"))
            raise ValueError(f"unit {name!r} has {key!r}; known are {known}")
