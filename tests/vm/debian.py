"""Debian's packages as folders: unpacked by mmdebstrap, from the mirrors that this machine uses."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from testbed.errors import NodeError
from testbed.node.context import SUITE
from testbed.node.debian import mirrors, proxies
from testbed.node.host import Host
from tests.vm.commands import isolated, run

__all__ = ["BACKPORTS", "backports", "install", "reachable", "sources", "unpack"]

BACKPORTS = f"{SUITE}-backports"
_APT_HELPER = "/usr/lib/apt/apt-helper"
_MERGED_USR = Path("/usr/share/mmdebstrap/hooks/merged-usr")
_UNREAD = ("man", "doc", "info", "locale")


def install(root: Path, packages: Iterable[str], host: Host) -> None:
    """Make a Debian that runs, with ``packages``, at ``root``."""
    hook = [f"--hook-dir={_MERGED_USR}"] if _MERGED_USR.is_dir() else []
    added = [*packages, "usr-is-merged"] if hook else packages
    chosen = ["--variant=minbase", *hook, f"--include={','.join(added)}"]
    _mmdebstrap([*chosen, SUITE, str(root), *mirrors(host)], host)


def unpack(folder: Path, package: str, lines: Sequence[str], host: Host) -> None:
    """Unpack a package and what it depends on: from backports, if ``lines`` name them."""
    release = BACKPORTS if any(f" {BACKPORTS} " in line for line in lines) else SUITE
    chosen = ["--variant=extract", f"--include={package}"]
    preferred = f'--aptopt=APT::Default-Release "{release}"'
    _mmdebstrap([*chosen, preferred, SUITE, str(folder), *lines], host)


def sources(root: Path) -> list[str]:
    """The sources that mmdebstrap chose, or was given, for the Debian at ``root``."""
    text = (root / "etc/apt/sources.list").read_text()
    return [line for line in text.splitlines() if line.startswith("deb ")]


def backports(lines: Iterable[str]) -> str | None:
    """The suite's backports, on the mirror that ``lines`` get the suite itself from."""
    for line in lines:
        before, suite, components = line.partition(f" {SUITE} ")
        if suite:
            return f"{before} {BACKPORTS} {components}"
    return None


def reachable(source: str, folder: Path) -> bool:
    """Whether a source answers now; ``folder`` takes what it says."""
    uri, suite = source.rsplit("]", 1)[-1].removeprefix("deb").split()[:2]
    release = f"{uri.rstrip('/')}/dists/{suite}/InRelease"
    limits = ["-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=15"]
    try:
        run([_APT_HELPER, *limits, "download-file", release, str(folder / "InRelease")])
    except NodeError:
        return False
    return True


def _mmdebstrap(words: Sequence[str], host: Host) -> None:
    options = [
        "--mode=root",
        '--aptopt=Acquire::Languages "none"',
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _UNREAD),
    ]
    # a host that takes mirrors whatever their age (a snapshot, a wrong clock) needs the same inside
    for name in ("Acquire::Check-Valid-Until", "Acquire::Check-Date"):
        if value := _setting(name, host):
            options.append(f'--aptopt={name} "{value}"')
    argv = isolated(["mmdebstrap", *options, *words], network=True)
    run(argv, env={"PATH": host.environment()["PATH"], **proxies(host)})


def _setting(name: str, host: Host) -> str:
    """A setting of this machine's apt."""
    words = shlex.split(host.run(["apt-config", "shell", "VALUE", name]).output)
    return words[0].removeprefix("VALUE=") if words else ""
