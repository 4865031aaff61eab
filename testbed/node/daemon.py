"""Getting a Docker engine to run on this machine: Debian's package, systemd or dockerd itself."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import MissingCapabilityError
from testbed.node.host import Host, as_root, install, tail, user
from testbed.node.progress import Progress

__all__ = ["Daemon", "answers", "provide"]

_PACKAGES = ("docker.io", "iptables")
_START_SECONDS = 60.0
_POLL_SECONDS = 0.05
_OTHER_DISTRIBUTIONS = {
    "dnf": "sudo dnf install moby-engine",
    "zypper": "sudo zypper install docker",
    "pacman": "sudo pacman -S docker",
    "apk": "sudo apk add docker",
}
"""Package managers, and how each gets an engine."""
_HINTS = {
    "cgroup": "The cgroup file system is not mounted: `mount -t cgroup2 cgroup2 /sys/fs/cgroup`.",
    "iptables": "iptables does not work: `update-alternatives --config iptables` chooses another "
    "backend.",
}
"""What dockerd's last words mean."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """A dockerd that is started without an init system."""

    arguments: tuple[str, ...] = ()
    socket: str = "/var/run/docker.sock"
    pidfile: str = "/var/run/docker.pid"
    log: str = "/var/log/testbed-dockerd.log"
    managed: bool = True
    """Whether it is the machine's own, which systemd starts where it rules."""


def provide(host: Host, daemon: Daemon, report: Progress) -> None:
    """Install an engine if there is none and start it; return when it answers.

    Raises:
        MissingCapabilityError: testbed may not or cannot do it; says what to run.
    """
    if host.which("dockerd") is None:
        _check_may_install(host)
        why = "there is no Docker engine on this machine"
        install(host, _PACKAGES, why, report, "engine")
        if answers(daemon.socket):  # its package may have started it
            return
    if not host.is_root:
        raise MissingCapabilityError(
            "the Docker engine of this machine does not run, and only root may start it. Run:\n"
            f"  {_start_command(host)}\nthen `testbed setup` again."
        )
    if daemon.managed and host.has_systemd and _has_unit(host):
        _start_unit(host, daemon, report)
    else:
        _start_dockerd(host, daemon, report)


def answers(path: str) -> bool:
    """Whether an engine serves its API at the Unix socket ``path``."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            connection.connect(path)
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except OSError:
        return False


def _check_may_install(host: Host) -> None:
    if host.is_debian and host.is_root:
        return
    if host.is_debian:
        reason = "only root may install one"
        commands = ["sudo apt-get update"]
        commands.append(f"sudo apt-get install --no-install-recommends {' '.join(_PACKAGES)}")
    else:
        reason = f"testbed installs one only on Debian and Ubuntu, not on {host.distribution}"
        found = [line for tool, line in _OTHER_DISTRIBUTIONS.items() if host.which(tool)]
        commands = found[:1] or ["(install Docker Engine 20.10 or newer)"]
    commands.append(_start_command(host))
    if not host.is_root:
        commands.append(f"sudo usermod -aG docker {user()}    # then log in again")
    raise MissingCapabilityError(
        f"there is no Docker engine on this machine, and {reason}. Run:\n"
        + "".join(f"  {command}\n" for command in commands)
        + "then `testbed setup` again."
    )


def _start_command(host: Host) -> str:
    return "sudo systemctl start docker" if host.has_systemd else as_root("setup")


def _has_unit(host: Host) -> bool:
    return host.run(["systemctl", "cat", "docker.service"]).code == 0


def _start_unit(host: Host, daemon: Daemon, report: Progress) -> None:
    report("engine", "starting docker.service")
    started = host.run(["systemctl", "start", "docker.service"])
    if started.code:
        journal = host.run(["journalctl", "--no-pager", "-o", "cat", "-n", "12", "-u", "docker"])
        raise _failed("`systemctl start docker` failed", started.output + journal.output)
    _wait(daemon, lambda: None, lambda: "see `journalctl -u docker`")


def _start_dockerd(host: Host, daemon: Daemon, report: Progress) -> None:
    if (other := _running(host, daemon)) is not None:
        report("engine", f"dockerd (PID {other}) is starting; waiting for it")
        _wait(daemon, lambda: None, lambda: f"PID {other} holds {daemon.pidfile}")
        return
    # dockerd refuses to start while any process has the PID in its file
    host.path(daemon.pidfile).unlink(missing_ok=True)
    log = host.path(daemon.log)
    written = len(_read(log))
    report("engine", f"starting dockerd; its log is {log}")
    pid = _spawn(host, daemon, log)
    ended: list[int] = []

    def check() -> None:
        if not ended and os.waitpid(pid, os.WNOHANG)[0]:
            ended.append(pid)
        if ended:
            raise _failed("dockerd ended at once", _read(log)[written:])

    _wait(daemon, check, lambda: _read(log)[written:])


def _running(host: Host, daemon: Daemon) -> int | None:
    """The PID of the dockerd that the pidfile names; ``None`` too if that PID is another's now."""
    text = host.read(daemon.pidfile).strip()
    if not text.isdigit():
        return None
    return int(text) if host.read(f"/proc/{text}/comm").strip() == "dockerd" else None


def _spawn(host: Host, daemon: Daemon, log: Path) -> int:
    """Start dockerd in a session of its own, so that it survives us and our terminal."""
    argv = ["env", "--chdir=/", "dockerd", "--pidfile", daemon.pidfile, *daemon.arguments]
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawnp(
        "env",
        argv,
        host.environment(),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o640),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores them, and children inherit it
    )


def _wait(daemon: Daemon, check: Callable[[], None], words: Callable[[], str]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not answers(daemon.socket):
        check()
        if time.monotonic() > deadline:
            what = f"the Docker engine did not answer at {daemon.socket} in {_START_SECONDS:.0f} s"
            raise _failed(what, words())
        time.sleep(_POLL_SECONDS)


def _read(log: Path) -> str:
    try:
        return log.read_text(errors="replace")
    except OSError:
        return ""


def _failed(what: str, words: str) -> MissingCapabilityError:
    last = tail(words) or "  (it said nothing)"
    hint = next((text for sign, text in _HINTS.items() if sign in last.lower()), "")
    remedy = hint or "Correct what it says."
    return MissingCapabilityError(f"{what}:\n{last}\n{remedy} Then run `testbed setup` again.")
