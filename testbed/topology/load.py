"""Loading a topology: the only module of this package that touches files.

``load`` reads a Compose file and the manifests that it names, and raises one error with every
problem of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from testbed.errors import UsageError
from testbed.topology.cnis import Cnis
from testbed.topology.compose import TOP_LEVEL, TOP_LEVEL_REFUSED, read_fabric
from testbed.topology.declared import ManifestReference
from testbed.topology.manifests import read_manifests
from testbed.topology.model import Cluster
from testbed.topology.resolve import Overrides, resolve
from testbed.topology.section import alternatives, mapping
from testbed.topology.settings import read_settings
from testbed.topology.source import Place, Problems, Value, documents, located, quote

__all__ = ["Cnis", "Overrides", "find", "from_dict", "load", "shipped"]

_PACKAGE = Path(__file__).resolve().parent.parent
_SHIPPED = (_PACKAGE / "compose", _PACKAGE.parent / "compose")
"""Where testbed's own topologies are: in an installed package, and in a checkout."""
_NO_OVERRIDES = Overrides()


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


def load(path: Path, overrides: Overrides = _NO_OVERRIDES, *, cnis: Cnis) -> Cluster:
    """Read a topology and the manifests that it names.

    ``cnis`` says which CNIs there are, with their backends and the types of their options.

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
    return _cluster(values[0], path, overrides, cnis, problems)


def from_dict(
    data: Mapping[str, Any],
    overrides: Overrides = _NO_OVERRIDES,
    *,
    cnis: Cnis,
    path: Path = Path("topology"),
) -> Cluster:
    """The same for a topology that is data already; ``path`` is where it would stand.

    Raises:
        TopologyError: every problem of it.
    """
    value = located(data, Place(_shown(path)))
    return _cluster(value, path, overrides, cnis, Problems())


def _cluster(
    value: Value, path: Path, overrides: Overrides, cnis: Cnis, problems: Problems
) -> Cluster:
    document = mapping(value, "", problems)
    if document is None:
        problems.check()
        raise AssertionError("a document that is no mapping is a problem")
    document.only(TOP_LEVEL, TOP_LEVEL_REFUSED, extensions=True)
    default_name = path.name.partition(".")[0]
    settings = read_settings(document, default_name, cnis)
    fabric = read_fabric(document)
    objects = list(_manifest_objects(settings.manifests, path.parent, problems))
    pods = read_manifests(objects, problems).pods
    return resolve(settings, fabric, pods, overrides, problems)


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
        values = documents(text, _shown(path), problems) if text is not None else None
        if values == []:
            problems.add(Place(_shown(path)), "the file is empty; write a Kubernetes manifest")
        yield from (("", value) for value in values or ())


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
