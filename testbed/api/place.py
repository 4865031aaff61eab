"""A place as tests speak of it, a node or a pod: its devices, and what it is asked to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property, partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from testbed.api import ping as pings
from testbed.api.asked import LARGEST, at_a_port, seconds_of, within
from testbed.api.reach import Reach, diagnosed, sent, traced
from testbed.errors import UsageError
from testbed.node.container import run
from testbed.packets import explanations
from testbed.target import Target
from testbed.topology.service import Service

if TYPE_CHECKING:
    from testinfra.host import Host

    from testbed.api.testbed import Testbed

__all__ = [
    "Address",
    "CommandError",
    "Completed",
    "Interface",
    "Place",
    "address_of",
]

Address = IPv4Address | IPv6Address
_COMMAND_SECONDS = 60.0
_ANSWER_SECONDS = 2.0
_SIZE = 56


class CommandError(AssertionError):
    """A command failed; the message has what it printed."""


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Interface:
    """A network device of a node, router or pod; ``str()`` is its name in captures."""

    place: str
    """A node's or router's name, or a pod's key."""
    device: str
    node: str
    """The node or router that it is on."""
    pod: str = ""
    """The pod in whose network namespace it is; empty: the node's own."""

    def __str__(self) -> str:
        return f"{self.place}/{self.device}"


class Place(ABC):
    """What nodes and pods have in common; ``str()`` is its name in tables and captures."""

    def __init__(self, testbed: Testbed, name: str, target: Target) -> None:
        self.name = name
        self._testbed = testbed
        self._target = target

    @property
    @abstractmethod
    def key(self) -> str:
        """Its name in the whole testbed: a node's, or a pod's ``namespace/name``."""

    @property
    @abstractmethod
    def ip(self) -> IPv4Address:
        """The address at which others reach it."""

    @property
    @abstractmethod
    def addresses(self) -> frozenset[Address]:
        """All addresses from which it may send."""

    @abstractmethod
    def __getitem__(self, device: str) -> Interface:
        """A network device by name: ``node2["flannel.1"]``."""

    __iter__ = None
    """Without this, Python would look for devices 0, 1, 2 … without end."""

    def __str__(self) -> str:
        return self.key

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self.key} of testbed {self._testbed.name}>"

    @cached_property
    def host(self) -> Host:
        """testinfra inside of it: ``pod.host.socket("tcp://0.0.0.0:80").is_listening``."""
        from testbed.api.backend import host_of

        return host_of(self._testbed.client, self._testbed.name, self._target, self.key)

    def run(self, *argv: str, check: bool = True, seconds: float = _COMMAND_SECONDS) -> Completed:
        """Run a command there, without a shell.

        Args:
            argv: the command's words.
            check: whether to raise when it fails.
            seconds: how long it may take.

        Raises:
            CommandError: it failed (an :class:`AssertionError`).
            NodeError: it could not be run, or did not end in time.
        """
        __tracebackhide__ = True
        words = self._target.argv(list(argv))
        code, out, err = run(self._testbed.client, self._target.container, words, seconds)
        done = Completed(code, out.decode(errors="replace"), err.decode(errors="replace"))
        if check and code != 0:
            printed = "\n".join(filter(None, [done.stdout.strip(), done.stderr.strip()]))
            raise CommandError(f"`{' '.join(argv)}` in {self} failed ({code}):\n{printed}")
        return done

    def ping(
        self,
        target: Place | Address | str,
        count: int = 1,
        *,
        size: int | None = None,
        df: bool | None = None,
        timeout: float = _ANSWER_SECONDS,
    ) -> pings.Ping:
        """Send echo requests by ``ping``, and return what became of them.

        Args:
            target: a node, a pod or an address.
            count: how many, 50 ms apart.
            size: bytes of payload; 56 by default.
            df: whether routers must not fragment them (``-M do``) or may (``-M dont``); by default
                what the kernel does on its own.
            timeout: seconds to wait for the last reply.

        Raises:
            NoReplyError: there was no reply (an :class:`AssertionError`), in ping's own words.
            UsageError: such a ping cannot be sent.
        """
        __tracebackhide__ = True
        at_a_port(target, "use `reaches`")
        within("count", count, 1)
        within("size", size, 0, LARGEST)
        seconds_of(timeout)
        words = pings.argv(address_of(target), count, size, df, timeout)
        done = self.run(*words, check=False)
        found = pings.read(f"{done.stdout}{done.stderr}")
        if not found.received:
            asked = (self._testbed, self, target, "icmp", 0, _SIZE if size is None else size)
            trace = partial(traced, *asked, df=bool(df))
            explanations.note(lambda: f"{self} pings {target}: no reply\n{diagnosed(trace)}")
            raise pings.NoReplyError(f"{self} got no reply from {target}:\n{found.text}")
        return found

    def reaches(
        self,
        target: Place | Service | Address | str,
        *,
        tcp: int | None = None,
        udp: int | None = None,
        timeout: float = _ANSWER_SECONDS,
    ) -> Reach:
        """Ask whether a target answers: one TCP connection, UDP datagram or ICMP echo request.

        An application that stays silent on UDP cannot be told from one that is not reached; that of
        pods of testbed's own (``netexec``) answers.

        Args:
            target: a node, a pod, a Service or an address.
            tcp: the port to connect to.
            udp: the port to send a datagram to.
            timeout: seconds to wait for the answer.

        Returns:
            A value that is true or false, and knows why.

        Raises:
            NodeError: the source does not run, so that nothing was sent.
            UsageError: such a probe cannot be sent.
        """
        address = address_of(target)
        return sent(self._testbed, self, target, address, tcp=tcp, udp=udp, timeout=timeout)


def address_of(target: Place | Service | Address | str) -> Address:
    """The address that is meant by a node, a pod, a Service (its cluster IP), or an address.

    Raises:
        UsageError: it is none of them, or a headless Service.
    """
    neither = f"{target!r} is neither a node, a pod or a Service, nor an address"
    if isinstance(target, Place):
        return target.ip
    if isinstance(target, Service):
        if target.cluster_ip is None:
            raise UsageError(f"{target} is headless: it has no address; ask its pods")
        return target.cluster_ip
    if not isinstance(target, str | IPv4Address | IPv6Address):
        raise UsageError(neither)  # ip_address(80) is 0.0.0.80
    try:
        return ip_address(target)
    except ValueError:
        raise UsageError(neither) from None
