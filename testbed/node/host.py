"""The machine that testbed itself runs on: its files, its packages and who we are on it.

Everything that setup and doctor touch outside the engine goes through a :class:`Host`, so that
tests hand in another one.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import MissingCapabilityError
from testbed.node.progress import Progress

__all__ = ["Completed", "Host", "as_root", "install", "tail", "user"]

_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where daemons live; an ordinary user's PATH lacks them."""
_LISTS_STALE_SECONDS = 24 * 3600.0
_APT_LOCK_SECONDS = 300
_TAIL_LINES = 12


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command left behind; ``output`` is stdout and stderr as they came."""

    code: int
    output: str


class Host:
    """The real machine, below ``root`` (``/``)."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    @property
    def is_root(self) -> bool:
        """Whether we may install and start things."""
        return os.geteuid() == 0

    @property
    def kernel_release(self) -> str:
        """As ``uname -r`` says."""
        return os.uname().release

    def environment(self) -> Mapping[str, str]:
        """Our environment, with the system's daemons on the PATH."""
        path = [*os.environ.get("PATH", "").split(os.pathsep), *_SBIN]
        return {**os.environ, "PATH": os.pathsep.join(dict.fromkeys(filter(None, path)))}

    def which(self, name: str) -> str | None:
        """The executable called ``name``, or ``None``."""
        return shutil.which(name, path=self.environment()["PATH"])

    def run(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Completed:
        """Run a command to its end, without a terminal; one that does not exist has code 127."""
        try:
            done = subprocess.run(
                list(argv),
                env={**self.environment(), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
            )
        except FileNotFoundError:
            return Completed(127, f"{argv[0]}: not found")
        return Completed(done.returncode, done.stdout)

    def path(self, absolute: str) -> Path:
        """A path of the machine."""
        return self.root / absolute.lstrip("/")

    def read(self, absolute: str) -> str:
        """A file's text; empty when there is none or it may not be read."""
        try:
            return self.path(absolute).read_text(errors="replace")
        except OSError:
            return ""

    def os_release(self) -> dict[str, str]:
        """``/etc/os-release`` as a mapping."""
        pairs = (line.partition("=") for line in self.read("/etc/os-release").splitlines())
        return {key.strip(): value.strip().strip("\"'") for key, mark, value in pairs if mark}

    @property
    def distribution(self) -> str:
        """What the distribution calls itself."""
        return self.os_release().get("PRETTY_NAME", "an unknown distribution")

    @property
    def is_debian(self) -> bool:
        """Whether packages come from apt (Debian, Ubuntu and their relatives)."""
        release = self.os_release()
        family = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
        return bool(family & {"debian", "ubuntu"}) and self.which("apt-get") is not None

    @property
    def has_systemd(self) -> bool:
        """Whether systemd is PID 1 (sd_booted(3))."""
        return self.path("/run/systemd/system").is_dir()

    def lists_age(self) -> float:
        """Seconds since apt's package lists were fetched; infinite when there are none."""
        lists = self.path("/var/lib/apt/lists")
        if not any(lists.glob("*_Packages*")):
            return float("inf")
        # the files carry the mirror's times; only the directories tell when apt-get update ran
        partial = lists / "partial"
        fetched = max(entry.stat().st_mtime for entry in (lists, partial) if entry.exists())
        return time.time() - fetched


def install(host: Host, packages: Sequence[str], why: str, report: Progress, step: str) -> None:
    """Install Debian packages, refreshing apt's lists first when they are missing or a day old.

    Raises:
        MissingCapabilityError: not root, no apt, or apt-get failed; says what to run.
    """
    command = f"apt-get install --no-install-recommends {' '.join(packages)}"
    if not host.is_debian:
        raise MissingCapabilityError(
            f"{why}, and {host.distribution} is not Debian or Ubuntu, so testbed cannot install it."
            f"\nInstall what Debian calls {', '.join(packages)}, then run `testbed setup` again."
        )
    if not host.is_root:
        raise MissingCapabilityError(
            f"{why}, and only root may install it. Run:\n"
            f"  sudo apt-get update\n  sudo {command}\nthen `testbed setup` again."
        )
    stale = host.lists_age() > _LISTS_STALE_SECONDS
    if stale:
        _update(host, report, step)
    report(step, f"installing {', '.join(packages)}")
    done = _apt_get(host, "install", "--no-install-recommends", *packages)
    if done.code and not stale:  # lists younger than a day can still name what is gone
        _update(host, report, step)
        done = _apt_get(host, "install", "--no-install-recommends", *packages)
    if done.code:
        raise MissingCapabilityError(
            f"{why}, and `{command}` failed with code {done.code}:\n{tail(done.output)}\n"
            "Correct what apt-get says, then run `testbed setup` again."
        )


def _update(host: Host, report: Progress, step: str) -> None:
    report(step, "refreshing apt's package lists")
    _apt_get(host, "update")  # a broken extra source does not matter if the packages are found


def _apt_get(host: Host, command: str, *arguments: str) -> Completed:
    wait = f"DPkg::Lock::Timeout={_APT_LOCK_SECONDS}"
    options = ("-y", "-q", "-o", "Dpkg::Use-Pty=0", "-o", wait)
    return host.run(
        ["apt-get", command, *options, *arguments],
        env={"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1", "LC_ALL": "C.UTF-8"},
    )


def tail(output: str) -> str:
    """The last lines of a command's output, indented as a message shows them."""
    return "\n".join(f"  {line}" for line in output.rstrip().splitlines()[-_TAIL_LINES:])


def user() -> str:
    """Our user's name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "$USER"


def as_root(*words: str) -> str:
    """The command that runs ``testbed WORDS`` as root, whose PATH may lack our installation."""
    program = Path(sys.argv[0])
    name = str(program.absolute()) if program.name == "testbed" else "testbed"
    return " ".join(["sudo", name, *words])
