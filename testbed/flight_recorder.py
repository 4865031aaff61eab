"""The flight recorder: what passed a testbed's nodes lately, and evidence when asked for.

Each node runs one tcpdump on all its interfaces, which keeps the last megabytes in files in memory.
Nothing is read from them until a test fails: then ``testbed-agent record`` takes that test's time
slice out, and texts of the node's routes, rules, neighbours and so on as they are at that moment.

tcpdump lives as long as an exec whose standard input is held open here. When this process ends,
however it ends, the engine closes that input, and the node kills tcpdump and removes the files.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from testbed.errors import NodeError, TestbedError
from testbed.node import container
from testbed.node.parallel import each
from testbed.node.session import Session
from testbed.packets.merging import merged

if TYPE_CHECKING:
    import docker

    from testbed.topology.model import Cluster

__all__ = ["APPLICATION", "Evidence", "FlightRecorder"]

APPLICATION = "testbed flight recorder"
"""What pcapng files say that they are of."""

_FILES = 8
RING = f"""\
exec 2>&1
mkdir -m 700 "$1" || exit
(ulimit -f 2048; exec setpriv --pdeathsig KILL ip -o monitor link >"$1/links") &
links=$!
setpriv --pdeathsig KILL tcpdump -i any -y LINUX_SLL2 -s 256 -U --immediate-mode -Z root \\
    --time-stamp-precision=nano -C 1 -W {_FILES} -w "$1/ring" &
ring=$!
echo $ring >"$1/pid"
cat <&0 >/dev/null &
wait -n $ring $!
kill -KILL $ring $links $! 2>/dev/null
wait
rm -rf "$1"
"""
"""Eight files of a million bytes, and the names of interfaces that come and go. It ends when its
input does, or tcpdump. bash, for ``wait -n``, and no Python, because it runs on every node of every
testbed under test."""

_PAUSE_SECONDS, _LONGEST_PAUSE = 0.3, 3.0
"""A ring whose node restarts, or whose tcpdump dies, is begun again, later each time it fails."""
_END_SECONDS = 2.0
_COLLECT_SECONDS = 20.0
_LOG_LINES = 2000


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one node tells of a time slice."""

    node: str
    pcapng: bytes = b""
    """Its frames, with interfaces named ``node1/eth0``."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """File name → text, as the node is at the end of the slice."""
    problems: tuple[str, ...] = ()
    since_ns: int = 0
    """When recording began; 0: it never did."""
    counts: str = ""
    """What tcpdump captured and the kernel dropped since then, in tcpdump's words."""


class FlightRecorder:
    """Rings on the nodes of one testbed; ``containers`` maps nodes and routers to containers."""

    def __init__(
        self, client: docker.DockerClient, cluster: Cluster, containers: Mapping[str, str]
    ) -> None:
        self.client = client
        self.cluster = cluster
        self._rings = [_Ring(client, node, name) for node, name in containers.items()]

    def start(self) -> None:
        """Begin on all nodes at once, and do not wait for it."""
        for ring in self._rings:
            ring.thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until every ring records or could not be begun, at most so long."""
        deadline = time.monotonic() + seconds
        for ring in self._rings:
            ring.settled.wait(max(0.0, deadline - time.monotonic()))

    def collect(self, begin_ns: int, end_ns: int, *, texts: bool = True) -> list[Evidence]:
        """Every node's frames between two times of the nodes' clock, and its texts as of now.

        What fails is told as a problem of its node.
        """
        return each(lambda ring: ring.collect(begin_ns, end_ns, texts=texts), self._rings)

    def slice(self, begin_ns: int, end_ns: int) -> bytes:
        """The frames of all nodes between two times, as one pcapng file ordered by time."""
        found = self.collect(begin_ns, end_ns, texts=False)
        return merged((each.pcapng for each in found), APPLICATION)

    def stop(self) -> None:
        """End all rings; nothing of them stays on the nodes."""
        for ring in self._rings:
            ring.hang_up()
        for ring in self._rings:
            ring.thread.join(_END_SECONDS)


class _Ring:
    """One node's ring, and the thread that holds its exec open and hears what tcpdump says."""

    def __init__(self, client: docker.DockerClient, node: str, name: str) -> None:
        self.client = client
        self.node = node
        self.container = name
        self.directory = f"/dev/shm/testbed-flight-{secrets.token_hex(6)}"  # noqa: S108 - in the node
        self.settled = threading.Event()
        self.thread = threading.Thread(target=self._keep, name=f"flight {name}", daemon=True)
        self._stopping = threading.Event()
        self._guard = threading.Lock()
        self._session: Session | None = None  # while it is open
        self._since_ns = 0
        self._begun = 0
        self._counts = ""
        self._words = ""  # what this ring's exec said of trouble
        self._why = ""  # why the one before it ended

    def _keep(self) -> None:
        """Record until told to stop: also after the node's restarts, however long it is away."""
        pause = _PAUSE_SECONDS
        while True:
            begun, self._words = self._begun, ""
            try:
                self._record()
                self._why = self._words or "its exec ended"
            except Exception as error:  # told by collect: nobody hears a thread
                self._why = _first_line(error)
            self.settled.set()
            pause = _PAUSE_SECONDS if self._begun > begun else min(2 * pause, _LONGEST_PAUSE)
            if self._stopping.wait(pause):
                return

    def _record(self) -> None:
        argv = ["bash", "-c", RING, "flight-recorder", self.directory]
        with Session(self.client, self.container, argv) as session:
            with self._guard:
                self._session = session
            try:
                self._listen(session)
            finally:
                with self._guard:
                    self._session = None

    def _listen(self, session: Session) -> None:
        rest = b""
        for chunk in session.chunks() if not self._stopping.is_set() else ():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._hear(line.decode(errors="replace").removeprefix("tcpdump: ").strip())

    def _hear(self, line: str) -> None:
        if line.startswith("listening on"):
            self._since_ns = time.time_ns()
            self._begun += 1
            self.settled.set()
        elif "dropped by kernel" in line:
            self._counts = line
        elif line and not line.startswith("data link type"):
            self._words = line

    def hang_up(self) -> None:
        """End the exec; the thread ends with it."""
        self._stopping.set()
        with self._guard:
            if self._session is not None:
                self._session.hang_up()

    def collect(self, begin_ns: int, end_ns: int, *, texts: bool) -> Evidence:
        """What the node tells of a time slice; never raises."""
        request = {"node": self.node, "ring": self.directory, "files": _FILES, "evidence": texts}
        request |= {"begin_ns": begin_ns, "end_ns": end_ns}
        try:
            answer = self._ask(request)
            found = dict(answer["texts"])
            if texts:
                found["agent.log"] = self._log()
        except (TestbedError, ValueError, KeyError) as error:
            return Evidence(self.node, problems=(_first_line(error),))
        words = self._words or self._why
        why = f" ({words})" if words else ""
        problems = [f"{text}{why}" for text in answer["problems"]]
        if self._begun > 1 and self._since_ns > begin_ns:
            problems.append(f"recording was begun anew{why}: what passed before is lost")
        if answer["oldest_ns"] > begin_ns:
            late = (answer["oldest_ns"] - begin_ns) / 1e6
            problems.append(f"the ring was full: frames of the first {late:.0f} ms are overwritten")
        frames = base64.b64decode(answer["pcapng"])
        return Evidence(self.node, frames, found, tuple(problems), self._since_ns, self._counts)

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        argv = ["testbed-agent", "record", f"inline:{json.dumps(request)}"]
        output = container.execute(self.client, self.container, argv, _COLLECT_SECONDS)
        answer = json.loads(output)
        if not isinstance(answer, dict):
            raise NodeError(f"`testbed-agent record` on {self.container} answered no object")
        return answer

    def _log(self) -> str:
        try:
            words = self.client.api.logs(self.container, tail=_LOG_LINES)
        except OSError as error:  # also the SDK's errors, which are those of requests
            return f"{error}\n"
        return str(words.decode(errors="replace"))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), repr(error))
