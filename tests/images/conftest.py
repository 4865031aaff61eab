"""Compiles the node image's C programs once per session and runs them over loopback.

`CFLAGS` is passed on, so that the same tests run under the sanitizers:
`CFLAGS='-g -fsanitize=address,undefined' pytest tests/images`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.images.netexec_client import Netexec, StartNetexec, run_netexec

SOURCES = Path(__file__).parents[2] / "images" / "node"
WARNINGS = ["-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"]

# Fails what the tests need to see failing; see the places where it is preloaded.
FAILING_CALLS = r"""
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>

static int wanted(const char *variable, int value)
{
    const char *text = getenv(variable);
    return text != NULL && atoi(text) == value;
}

int sigaction(int number, const struct sigaction *new, struct sigaction *old)
{
    int (*real)(int, const struct sigaction *, struct sigaction *) = dlsym(RTLD_NEXT, "sigaction");
    errno = EINVAL;
    return wanted("FAIL_SIGNAL", number) ? -1 : real(number, new, old);
}

int socket(int family, int type, int protocol)
{
    int (*real)(int, int, int) = dlsym(RTLD_NEXT, "socket");
    errno = EAFNOSUPPORT;
    return wanted("FAIL_FAMILY", family) ? -1 : real(family, type, protocol);
}
"""


@dataclass(frozen=True)
class Programs:
    """The compiled programs.

    `netexec` is as it ships. `adjustable` differs in what a test cannot have otherwise: how long it
    waits for a dialed peer is taken from the environment (`DIAL_TIMEOUT`, milliseconds), and its
    SCTP server speaks TCP, which every kernel has.
    """

    pause: Path
    netexec: Path
    adjustable: Path
    failing_calls: Path


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """Compile everything, in parallel."""
    directory = tmp_path_factory.mktemp("programs")
    netexec = sorted(map(str, (SOURCES / "netexec").glob("*.c")))
    shim = directory / "failing_calls.c"
    shim.write_text(FAILING_CALLS)

    def compiled(name: str, *arguments: str) -> Path:
        output = directory / name
        command = ["cc", *WARNINGS, *os.environ.get("CFLAGS", "").split(), "-o", str(output)]
        result = subprocess.run([*command, *arguments], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return output

    with ThreadPoolExecutor() as pool:
        built: list[Future[Path]] = [
            pool.submit(compiled, "pause", str(SOURCES / "pause.c")),
            pool.submit(compiled, "netexec", *netexec),
            pool.submit(
                compiled,
                "adjustable",
                "-include",
                "stdlib.h",
                '-DNETEXEC_DIAL_TIMEOUT=atoi(getenv("DIAL_TIMEOUT"))',
                "-DNETEXEC_SCTP_PROTOCOL=IPPROTO_TCP",
                *netexec,
            ),
            pool.submit(compiled, "failing_calls.so", "-shared", "-fPIC", str(shim)),
        ]
        return Programs(*(each.result() for each in built))


@pytest.fixture
def start(programs: Programs) -> Iterator[StartNetexec]:
    """Start netexec with flags of the test's own; ended after the test."""
    with contextlib.ExitStack() as running:

        def started(*flags: str, environment: dict[str, str] | None = None) -> Netexec:
            netexec = run_netexec(programs.adjustable, *flags, environment=environment)
            running.callback(netexec.stop)
            return netexec

        yield started


@pytest.fixture(scope="session")
def server(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Netexec]:
    """Return a netexec that the tests share: they must not end or disturb it."""
    uploads = tmp_path_factory.mktemp("uploads")
    netexec = run_netexec(programs.adjustable, f"--upload-dir={uploads}", "--sctp-port=SCTP_PORT")
    yield netexec
    netexec.stop()
