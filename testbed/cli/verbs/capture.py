"""``testbed capture``: packets of any interfaces of nodes and pods, as one sequence."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING

from testbed.cli import lines, options
from testbed.errors import MissingCapabilityError, TestbedError, UsageError

if TYPE_CHECKING:
    from testbed.agent.pcapng import Record
    from testbed.cli.console import Console
    from testbed.topology.model import Cluster
    from testbed.verify.recording import Recording

HELP = "capture on interfaces of nodes and pods, in one file or as text"
EXAMPLE = """\
testbed capture
testbed capture node1:flannel.1 netexec-node1-1 --filter icmp
testbed capture node1:all node2:all -w all.pcapng --duration 10
testbed capture --wireshark
testbed capture node2 --filter 'icmp or udp port 8472' --count 10
testbed capture node1 node2 -o json"""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MOST, _LONGEST = 10**8 - 1, (1 << 18) - 1
"""Packets; bytes of each, tcpdump's own limit."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where, what, and where to."""
    parser.add_argument(
        "targets",
        metavar="TARGET[:IFACE]",
        nargs="*",
        help="a node, router, client or [NAMESPACE/]POD, and its interface (default: eth0) or "
        "`all` (default: the uplinks of all nodes)",
    )
    parser.add_argument(
        "--filter",
        metavar="BPF",
        default="",
        help="tcpdump's filter expression; it looks at outer headers, so `icmp or udp port 8472` "
        "to have what flannel's VXLAN carries, too",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-w", "--write", metavar="FILE", help="write pcapng to a file; `-`: stdout")
    where.add_argument("--wireshark", action="store_true", help="show packets live in Wireshark")
    where.add_argument(
        "-o",
        "--output",
        choices=("text", "json"),
        default="text",
        help="json: an object for every packet, one a line, with stable keys (default: text)",
    )
    # Values are read by _problems, which names all wrong ones at once.
    parser.add_argument("--count", metavar="N", help="end after so many packets")
    parser.add_argument("--duration", metavar="SECONDS", help="end after so many seconds")
    parser.add_argument(
        "--snaplen",
        metavar="BYTES",
        help="keep so much of longer frames; 0: all (default: 1960, which is more than a wire "
        "carries, but less than segmentation offload passes on inside a node)",
    )
    options.name(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Capture until interrupted, or until there is enough; exit code 1 if packets are missing."""
    problems = list(_problems(args))
    if problems:
        raise UsageError("\n".join(problems))
    if args.wireshark:
        _wireshark()
    from testbed import existing
    from testbed.node import engine, inventory
    from testbed.verify.capture import capturing, sources
    from testbed.verify.observed import Observed

    client = engine.connect()
    name = existing.choose(client, options.wanted_name(args))
    listings = inventory.containers(client, name)
    cluster = existing.cluster_of(client, name, listings)
    addresses = {node: inventory.address(listing) for node, listing in listings.items()}
    chosen = sources(cluster, Observed.of(addresses, {}), args.targets)
    snaplen = None if args.snaplen is None else int(args.snaplen)
    with (
        capturing(client, cluster, chosen, args.filter, snaplen=snaplen, live=True) as recording,
        _output(args) as output,
    ):
        nodes = len({source.node for source in chosen})
        console.note(
            f"capturing on {_several(len(recording.interfaces), 'interface')} "
            f"of {_several(nodes, 'node')}"
        )
        with _ending(recording, args.duration):
            _deliver(recording, args, output, cluster)
        console.note(
            f"{_several(recording.captured, 'packet')} captured, "
            f"{recording.dropped} dropped by the kernel"
        )
        for problem in recording.problems:
            console.error(problem)
        return 1 if recording.problems else 0


def _problems(args: argparse.Namespace) -> Iterator[str]:
    if args.count is not None and not options.within(args.count, 1, _MOST):
        yield f"--count {args.count[:20]}: it is a number from 1 to {_MOST}"
    if args.snaplen is not None and not options.within(args.snaplen, 0, _LONGEST):
        yield f"--snaplen {args.snaplen[:20]}: it is a number from 0 to {_LONGEST}"
    if args.duration is not None and not _seconds(args.duration):
        yield f"--duration {args.duration}: it is a number of seconds, more than 0"
    if args.write == "-" and sys.stdout.isatty():
        yield "-w -: a terminal cannot show pcapng; pipe it to a command, or leave -w out"
    elif args.write not in (None, "-") and (problem := options.unwritable("-w", args.write)):
        yield problem


def _seconds(text: str) -> float:
    """A number of seconds that a timer takes; else 0."""
    try:
        seconds = float(text) if text.isascii() and "_" not in text else 0.0
    except ValueError:
        return 0.0
    return seconds if 0 < seconds < threading.TIMEOUT_MAX else 0.0


@contextmanager
def _ending(recording: Recording, duration: str | None) -> Iterator[None]:
    """Ctrl-C, a signal or the time ends the capture well; Ctrl-C once more interrupts it."""

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, before[signal.Signals(number)])
        recording.ask_to_stop()

    timer = threading.Timer(_seconds(duration) if duration else 0.0, recording.ask_to_stop)
    timer.daemon = True
    # What whoever started us wants ignored stays so: `nohup testbed capture`.
    heard = [each for each in _SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        if duration:
            timer.start()
        yield
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _output(args: argparse.Namespace) -> Iterator[IO[bytes]]:
    """Where packets are written to; a pipe that has a name waits here until somebody reads it.

    Raises:
        TestbedError: that is not possible, or no longer.
        BrokenPipeError: nobody reads standard output any longer.
    """
    named = args.write is not None and args.write != "-"
    where = f"-w {args.write}" if named else "--wireshark" if args.wireshark else "standard output"
    try:
        if named:
            with Path(args.write).open("wb") as file:
                yield file
        else:
            yield sys.stdout.buffer
    except OSError as error:
        if isinstance(error, BrokenPipeError) and not named:
            raise
        raise TestbedError(f"{where}: {error.strerror}") from error


def _deliver(
    recording: Recording, args: argparse.Namespace, output: IO[bytes], cluster: Cluster
) -> None:
    """Hand on packets as they come, to wherever they are wanted."""
    count = int(args.count) if args.count else None
    if args.wireshark:
        _show(recording, count, cluster)
    elif args.write:
        _write(recording, output, count)
    else:
        shown = lines.text if args.output == "text" else lines.json
        _print(recording, output, count, shown(recording, cluster))


def _write(recording: Recording, file: IO[bytes], count: int | None) -> None:
    for blocks in recording.stream(count):
        _put(file, blocks)


def _put(file: IO[bytes], data: bytes) -> None:
    """Write all of it; with PYTHONUNBUFFERED, a signal cuts a single write to a pipe short."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
    file.flush()


def _print(
    recording: Recording, file: IO[bytes], count: int | None, shown: Callable[[Record], str]
) -> None:
    """One line per packet."""
    for batch in recording.batches(count):
        _put(file, "".join(f"{shown(each)}\n" for each in batch).encode())


def _wireshark() -> str:
    """Wireshark's command.

    Raises:
        MissingCapabilityError: it is not installed.
    """
    import shutil

    command = shutil.which("wireshark")
    if command is None:
        raise MissingCapabilityError(
            "--wireshark needs Wireshark on this machine. Install Debian's wireshark, or write a "
            "file with -w and open it elsewhere."
        )
    return command


def _show(recording: Recording, count: int | None, cluster: Cluster) -> None:
    """Wireshark stays open when the capture has ended; when it is closed, the capture ends.

    Raises:
        TestbedError: it did not end well, as without a display.
    """
    import subprocess

    ports = sorted(lines.vxlan_ports(cluster))
    decoded = [word for port in ports for word in ("-d", f"udp.port=={port},vxlan")]
    process = subprocess.Popen(
        [_wireshark(), "-k", "-i", "-", *decoded],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us
    )
    assert process.stdin is not None

    def follow() -> None:
        process.wait()
        recording.ask_to_stop()

    # Without packets, nothing would be written to the pipe, which is then found broken.
    threading.Thread(target=follow, daemon=True).start()
    try:
        with process.stdin:
            _write(recording, process.stdin, count)
    except BrokenPipeError:
        recording.stop()
    with suppress(subprocess.TimeoutExpired):  # it is still open
        if code := process.wait(0.1):
            raise TestbedError(f"Wireshark ended with exit code {code}")


def _several(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
