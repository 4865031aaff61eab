"""Loading a topology: the only module of this package that touches files.

``load`` reads a Compose file and the manifests that it names, and raises one error with every
problem of all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from testbed.errors import UsageError
from testbed.topology.cnis import Cnis
from testbed.topology.compose import TOP_LEVEL, TOP_LEVEL_REFUSED, read_fabric
from testbed.topology.declared import ManifestReference
from testbed.topology.manifests import read_manifests
from testbed.topology.model import Cluster
from testbed.topology.overrides import Overrides
from testbed.topology.resolve import resolve
from testbed.topology.section import alternatives, mapping
from testbed.topology.settings import read_settings
from testbed.topology.source import Place, Problems, Value, documents, located, quote

__all__ = [
    "PROXIES",
    "Cnis",
    "Objects",
    "Overrides",
    "find",
    "from_dict",
    "load",
    "objects",
    "shipped",
]

Objects: TypeAlias = list[tuple[str, Value]]
"""Values with the path inside their file, as :func:`.manifests.read_manifests` takes them."""

PROXIES = ("iptables", "ipvs", "nftables", "none")
"""kube-proxy's modes, unless a caller knows others."""

_PACKAGE = Path(__file__).resolve().parent.parent
_SHIPPED = (_PACKAGE / "compose", _PACKAGE.parent / "compose")
"""Where testbed's own topologies are: in an installed package, and in a checkout."""
_NO_OVERRIDES = Overrides()
_STDIN = "standard input"


def shipped() -> dict[str, Path]:
    """The topologies that come with testbed, by name."""
    directory = next((each for each in _SHIPPED if each.is_dir()), _SHIPPED[0])
    found = {path.stem: path.resolve() for path in directory.glob("*.yaml")}
    return dict(sorted(found.items()))


def find(name_or_path: str) -> Path:
    """``flannel`` is testbed's own topology of that name; anything else is a path.

    Raises:
        UsageError: there is neither; the message lists the names.
    """
    known = shipped()
    if name_or_path in known:
        return known[name_or_path]
    path = Path(name_or_path)
    if path.exists():
        return path
    hint = alternatives(name_or_path, known, "testbed's own")
    raise UsageError(
        f"there is no file and no topology {quote(name_or_path)}{hint}\n"
        "Give the path of a Compose file, or the name of one of testbed's own."
    )


def load(
    path: Path,
    overrides: Overrides = _NO_OVERRIDES,
    *,
    cnis: Cnis,
    proxies: tuple[str, ...] = PROXIES,
) -> Cluster:
    """Read a topology and the manifests that it names.

    ``cnis`` says which CNIs there are, with their backends and the types of their options;
    ``proxies`` are kube-proxy's modes.

    Raises:
        TopologyError: every problem of all these files.
    """
    problems = Problems()
    file = _shown(path)
    text = _read(path, Place(file), "the topology", problems)
    values = documents(text, file, problems, compose=True) if text is not None else None
    if values == []:
        problems.add(Place(file), "the file is empty; write services and x-testbed")
    if not values:
        problems.check()
        raise AssertionError("a file without a document is a problem")
    for second in values[1:]:
        problems.add(second.place, "a second YAML document; a Compose file is one: remove it")
    return _cluster(values[0], path, overrides, (cnis, proxies), problems)


def from_dict(
    data: Mapping[str, Any],
    overrides: Overrides = _NO_OVERRIDES,
    *,
    cnis: Cnis,
    proxies: tuple[str, ...] = PROXIES,
    path: Path = Path("topology"),
) -> Cluster:
    """The same for a topology that is data already; ``path`` is where it would stand.

    Raises:
        TopologyError: every problem of it.
    """
    value = located(data, Place(_shown(path)))
    return _cluster(value, path, overrides, (cnis, proxies), Problems())


def objects(paths: Sequence[str]) -> Objects:
    """The Kubernetes objects of manifest files, as they stand there; ``-`` is standard input.

    Raises:
        TopologyError: every file that cannot be read, or is not YAML.
    """
    problems = Problems()
    found: Objects = []
    for path in paths:
        if path == "-":
            text, shown = _standard_input(problems), _STDIN
        else:
            text, shown = _read(Path(path), Place("-f"), "manifest", problems), _shown(Path(path))
        found += _documents(text, shown, problems)
    problems.check()
    return found


def _cluster(
    value: Value,
    path: Path,
    overrides: Overrides,
    known: tuple[Cnis, tuple[str, ...]],
    problems: Problems,
) -> Cluster:
    document = mapping(value, "", problems)
    if document is None:
        problems.check()
        raise AssertionError("a document that is no mapping is a problem")
    document.only(TOP_LEVEL, TOP_LEVEL_REFUSED, extensions=True)
    default_name = path.name.partition(".")[0]
    settings = read_settings(document, default_name, *known)
    fabric = read_fabric(document)
    found = list(_manifest_objects(settings.manifests, path.parent, problems))
    return resolve(settings, fabric, read_manifests(found, problems), overrides, problems)


def _manifest_objects(
    references: tuple[ManifestReference, ...], directory: Path, problems: Problems
) -> Iterator[tuple[str, Value]]:
    """The Kubernetes objects of all manifests, each with its path inside its file."""
    for reference in references:
        if isinstance(reference.content, Value):
            yield reference.where, reference.content
            continue
        path = directory / reference.content
        text = _read(path, reference.place, reference.where, problems)
        yield from _documents(text, _shown(path), problems)


def _documents(text: str | None, file: str, problems: Problems) -> Objects:
    """The objects of one manifest file; ``text`` is None where it could not be read."""
    values = documents(text, file, problems) if text is not None else None
    if values == []:
        problems.add(Place(file), "the file is empty; write a Kubernetes manifest")
    return [("", value) for value in values or ()]


def _standard_input(problems: Problems) -> str | None:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        problems.add(Place(_STDIN), "not UTF-8 text; convert it to UTF-8")
    return None


def _read(path: Path, place: Place, what: str, problems: Problems) -> str | None:
    """The file's text; what hinders reading it is reported at ``place``."""
    shown = quote(_shown(path))
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        problems.add(place, f"{what}: there is no file {shown}; check the path")
    except IsADirectoryError:
        problems.add(place, f"{what}: {shown} is a directory; name the files in it")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        problems.add(Place(_shown(path), line), "not UTF-8 text; save the file as UTF-8")
    except OSError as error:
        problems.add(place, f"{what}: {shown} cannot be read: {error.strerror}")
    return None


def _shown(path: Path) -> str:
    """The path as messages print it: relative to the working directory where that is shorter."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
