"""The skeleton of a CNI plugin: environment, configuration, versions, errors.

Reproduces containernetworking/cni 1.3 (``pkg/skel/skel.go``, ``pkg/utils``), texts included, but
for the check that ``CNI_NETNS`` is not the plugin's own namespace. It is loaded for every ADD and
DEL of every pod, so it imports next to nothing: of ``json``, which costs 7 ms because it imports
``re``, only the part that is written in C.
"""

from __future__ import annotations

import os
import sys
from _json import encode_basestring_ascii as _quoted
from _json import make_encoder, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Command: TypeAlias = Callable[[dict[str, Any]], None]

__all__ = [
    "CniPluginError",
    "DelegateError",
    "arguments",
    "dumps",
    "execute_delegate",
    "indented",
    "loads",
    "plugin_main",
    "spawn",
]

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


class CniPluginError(Exception):
    """An error of the specification's section 5; code 999 is "internal"."""

    def __init__(self, msg: str, code: int = 999, details: str = "") -> None:
        super().__init__(msg)
        self.answer: dict[str, Any] = {"code": code, "msg": msg}
        if details:
            self.answer["details"] = details


class DelegateError(CniPluginError):
    """The delegate's own error, passed on as it is."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__("")
        self.answer = answer


class _Context:
    """What ``json.JSONDecoder`` tells the scanner."""

    strict = True
    object_hook = object_pairs_hook = array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


_scan: Callable[[str, int], tuple[Any, int]] = make_scanner(_Context)  # type: ignore[arg-type]
_encode = make_encoder(None, repr, _quoted, None, ":", ",", False, False, True)


def loads(text: str) -> Any:
    """``json.loads``: also what it raises, a ``ValueError``."""
    try:
        value, end = _scan(text, 0)
    except (StopIteration, SystemError, ValueError):  # or there are blanks before the value
        end = 0
    if end and not text[end:].strip():
        return value
    import json

    return json.loads(text)


def dumps(value: Any) -> str:
    """``json.dumps`` without a blank."""
    return "".join(_encode(value, 0))


def indented(value: Any, line: str = "\n") -> str:
    """``json.dumps`` with an indent of four blanks, as skel prints.

    Args:
        value: what JSON can say.
        line: what begins the line of the value's end.
    """
    if not isinstance(value, (dict, list)) or not value:
        return dumps(value)
    deeper = f"{line}    "
    if isinstance(value, dict):
        items = [f"{_quoted(key)}: {indented(each, deeper)}" for key, each in value.items()]
        return f"{{{deeper}{f',{deeper}'.join(items)}{line}}}"
    return f"[{deeper}{f',{deeper}'.join(indented(each, deeper) for each in value)}{line}]"


def plugin_main(
    about: str, commands: dict[str, Command], versions: tuple[str, ...] = VERSIONS
) -> int:
    """Run the command in the environment; 0, or 1 with the error as JSON on standard output.

    Args:
        about: the first line for somebody who runs the plugin by hand.
        commands: what ADD, DEL and CHECK do with the configuration that was read.
        versions: of the specification that the plugin supports.
    """
    try:
        return _dispatch(os.environ.get("CNI_COMMAND", ""), about, commands, versions)
    except CniPluginError as failure:
        sys.stdout.write(indented(failure.answer))
    except OSError as error:
        sys.stdout.write(indented({"code": 5, "msg": str(error)}))
    return 1


def _dispatch(
    command: str, about: str, commands: dict[str, Command], versions: tuple[str, ...]
) -> int:
    if not command:
        supported = ", ".join(versions)
        sys.stderr.write(f"{about}\nCNI protocol versions supported: {supported}\n")
        return 0
    if command == "VERSION":
        answer = {"cniVersion": VERSIONS[-1], "supportedVersions": list(versions)}
        sys.stdout.write(dumps(answer) + "\n")
        return 0
    _check_environment(command)
    config = _read_config()
    action = commands.get(command)
    if action is None:
        if command in ("GC", "STATUS"):
            _check_version(config, command, "1.1.0", versions)
            return 0
        raise CniPluginError(f"unknown CNI_COMMAND: {command}", 4)
    _check_version(config, command, "0.4.0" if command == "CHECK" else "0.1.0", versions)
    action(config)
    return 0


def _check_environment(command: str) -> None:
    """Skel's ``getCmdArgsFromEnv``: the first bad value, else all missing names at once."""
    attachment = ("ADD", "CHECK", "DEL")
    needed = {
        "CNI_CONTAINERID": attachment,
        "CNI_NETNS": ("ADD", "CHECK"),
        "CNI_IFNAME": attachment,
        "CNI_PATH": (*attachment, "GC", "STATUS"),
    }
    missing = []
    for name, commands in needed.items():
        value = os.environ.get(name, "")
        if command not in commands:
            continue
        if not value:
            missing.append(name)
        elif name == "CNI_CONTAINERID" and not _is_name(value):
            raise CniPluginError("invalid characters in containerID", 4, value)
        elif name == "CNI_IFNAME":
            _check_ifname(value)
    if missing:
        raise CniPluginError(f"required env variables [{','.join(missing)}] missing", 4)


def _is_name(text: str) -> bool:
    return text[:1] in LETTERS and all(char in LETTERS or char in "_.-" for char in text)


def _check_ifname(name: str) -> None:
    if len(name) > 15:
        raise CniPluginError(
            "interface name is too long", 4, "interface name should be less than 16 characters"
        )
    if name in (".", ".."):
        raise CniPluginError("interface name is . or ..", 4)
    if any(char in "/:" or char.isspace() for char in name):
        raise CniPluginError("interface name contains / or : or whitespace characters", 4)


def _read_config() -> dict[str, Any]:
    try:
        config = loads(sys.stdin.buffer.read().decode())
    except ValueError as error:
        raise CniPluginError(f"error unmarshall network config: {error}", 6) from None
    if not isinstance(config, dict):
        raise CniPluginError("error unmarshall network config: not a JSON object", 6)
    name = config.get("name", "")
    if not name:
        raise CniPluginError("missing network name", 7)
    if not isinstance(name, str) or not _is_name(name):
        raise CniPluginError("invalid characters found in network name", 7, str(name))
    return config


def _check_version(
    config: dict[str, Any], command: str, minimum: str, versions: tuple[str, ...]
) -> None:
    version = config.get("cniVersion") or "0.1.0"
    if version not in versions:
        details = f"config is {version!r}, plugin supports {list(versions)}".replace("'", '"')
        raise CniPluginError("incompatible CNI versions", 1, details)
    if VERSIONS.index(version) < VERSIONS.index(minimum):
        raise CniPluginError(f"config version does not allow {command}", 1)


def arguments(*known: str) -> dict[str, str]:
    """``CNI_ARGS``, of which only ``known`` keys may be there unless ``IgnoreUnknown`` is set.

    Raises:
        CniPluginError: with the words of ``pkg/types/args.go``.
    """
    text = os.environ.get("CNI_ARGS", "")
    found: dict[str, str] = {}
    for pair in text.split(";") if text else ():
        key, equals, value = pair.partition("=")
        if not equals or "=" in value:
            raise CniPluginError(f"ARGS: invalid pair {_quoted(pair)}")
        found[key] = value
    ignore = found.pop("IgnoreUnknown", "").lower() in ("1", "true")
    unknown = [_quoted(f"{key}={value}") for key, value in found.items() if key not in known]
    if unknown and not ignore:
        raise CniPluginError(f"ARGS: unknown args [{' '.join(unknown)}]")
    return found


def execute_delegate(
    kind: str, command: str, config: str, failed: str = "failed to delegate add: "
) -> str:
    """Execute a plugin with the same environment; return its standard output.

    Args:
        kind: the executable's name.
        command: ``ADD``, ``DEL`` or ``CHECK``.
        config: its standard input.
        failed: begins the message when ADD fails without a message of its own.
    """
    directories = os.environ.get("CNI_PATH", "").split(":")
    paths = [f"{directory}/{kind}" for directory in directories if "/" not in kind]
    path = next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113
    failed = failed if command == "ADD" else ""
    if path is None:
        where = " ".join(directories)
        raise CniPluginError(f'{failed}failed to find plugin "{kind}" in path [{where}]')
    status, output = spawn([path], config, {**os.environ, "CNI_COMMAND": command})
    if status == 0:
        return output
    if not output:
        raise CniPluginError(
            f"{failed}netplugin failed with no error message: exit status {status}"
        )
    try:
        answer = loads(output)
        raise DelegateError({"code": answer["code"], **answer})
    except (ValueError, KeyError, TypeError):
        raise CniPluginError(
            f"{failed}netplugin failed but error parsing its diagnostic message {output!r}"
        ) from None


def spawn(
    argv: list[str], stdin: str, environment: dict[str, str], *, join: bool = False
) -> tuple[int, str]:
    """Run to the end: exit status and standard output. ``subprocess`` would cost 10 ms.

    What is sent is far smaller than a pipe (64 KiB), so that writing first is safe.

    Args:
        argv: the executable is found by ``PATH`` unless it is a path.
        stdin: what the process reads.
        environment: all of its environment.
        join: return standard error, too; otherwise it is inherited.
    """
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, in_read, 0), (os.POSIX_SPAWN_DUP2, out_write, 1)]
    if join:
        actions.append((os.POSIX_SPAWN_DUP2, out_write, 2))
    pid = os.posix_spawnp(argv[0], argv, environment, file_actions=actions)
    os.close(in_read)
    os.close(out_write)
    try:
        with os.fdopen(in_write, "wb") as file:
            file.write(stdin.encode())
    except BrokenPipeError:
        pass  # it ended without reading: its status says why
    with os.fdopen(out_read, "rb") as answer:
        output = answer.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output
