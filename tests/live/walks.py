"""What tests ask of traces in testbeds that run, and how they break kube-proxy's rules."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from testbed import tracing
from testbed.node import inventory
from testbed.services.kept import with_services
from testbed.topology.service import Service
from testbed.verify.trace.model import Trace
from tests.live.conftest import SLOWNESS, Running

NODE1 = "node1"


def on(live: Running, where: str, command: str) -> str:
    """What a shell command prints in a node or pod."""
    return str(live.host(where).check_output(command))


def trace(live: Running, source: str, target: str, **probe: Any) -> Trace:
    """The trace alone."""
    return tracing.trace(live.client, live.name, source, target, **probe)[0]


def seen(found: Trace) -> list[list[str]]:
    """Where the packet was seen, there and back."""
    return [
        [f"{hop.event.place}/{hop.event.interface} {hop.event.direction}" for hop in leg.observed]
        for leg in (found.request, found.reply)
    ]


def wanted(found: Trace) -> list[list[str]]:
    """Where it had to be seen."""
    return [
        [f"{hop.place}/{hop.interface} {hop.direction}" for hop in leg.expected]
        for leg in (found.request, found.reply)
    ]


def told(found: Trace) -> list[str]:
    """What was done to it, and where."""
    legs = (found.request, found.reply)
    return [
        f"{hop.event.place}: {word}"
        for leg in legs
        for hop in leg.observed
        for word in hop.happened
        if "NAT" in word
    ]


class Rules:
    """The chains of ``default/far``'s TCP port on node1, in each mode's words.

    IPVS has none, but virtual servers: for the cluster IP, and for the node port.
    """

    def __init__(self, live: Running) -> None:
        self.live, self.mode = live, live.cluster.proxy
        self.nft = self.mode == "nftables"
        if self.mode == "ipvs":
            self.service, self.endpoint = "no virtual server", "leads to no endpoint"
        elif self.nft:
            listing = on(live, NODE1, "nft list table ip kube-proxy")
            self.service = self._found(r'chain "?(service-\S+-default/far/tcp/http)"? \{', listing)
            self.endpoint = self._found(
                r'chain "?(endpoint-\S+-default/far/tcp/http__\S+?)"? \{', listing
            )
        else:
            listing = on(live, NODE1, "iptables -t nat -S")
            self.service = self._found(r'default/far:http cluster IP" .*-j (KUBE-SVC-\S+)', listing)
            self.endpoint = self._found(rf"-A {self.service} .*-j (KUBE-SEP-\S+)", listing)

    @staticmethod
    def _found(pattern: str, text: str) -> str:
        found = re.search(pattern, text)
        assert found, text
        return found[1]

    @contextmanager
    def flushed(self, chain: str, *instead: str) -> Iterator[None]:
        """Without the rules of a chain, or with others."""
        if self.mode == "ipvs":
            save, again = "ipvsadm -Sn > /tmp/kept", "ipvsadm -C; ipvsadm -R < /tmp/kept"
            flush, more = self._virtual(chain, instead), []
        elif self.nft:
            save = "nft list table ip kube-proxy > /tmp/kept"
            again = "nft -f - <<X\ndelete table ip kube-proxy\n$(cat /tmp/kept)\nX"
            flush = f"nft 'flush chain ip kube-proxy {chain}'"
            more = [f"nft 'add rule ip kube-proxy {chain} {each}'" for each in instead]
        else:
            save, again = "iptables-save -t nat > /tmp/kept", "iptables-restore -T nat < /tmp/kept"
            flush = f"iptables -t nat -F {chain}"
            more = [f"iptables -t nat -A {chain} {each}" for each in instead]
        on(self.live, NODE1, save)
        try:
            for command in (flush, *more):
                on(self.live, NODE1, command)
            yield
        finally:
            on(self.live, NODE1, again)

    def _virtual(self, which: str, instead: tuple[str, ...]) -> str:
        """What takes virtual servers away, or gives them other servers."""
        server = f"{self.live.ip('far')}:8080"
        listing = on(self.live, NODE1, "ipvsadm -Sn")
        keys = re.findall(rf"^-a -t (\S+) -r {re.escape(server)} ", listing, re.MULTILINE)
        if which == self.service:
            return "; ".join(f"ipvsadm -D -t {key}" for key in keys)
        commands = [f"ipvsadm -d -t {key} -r {server}" for key in keys]
        commands += [f"ipvsadm -a -t {key} -r {each} -m" for key in keys for each in instead]
        return "; ".join(commands)

    def dnat(self, to: str) -> str:
        """A rule that translates elsewhere."""
        if self.mode == "ipvs":
            return to
        if self.nft:
            return f"meta l4proto tcp dnat to {to}"
        return f"-p tcp -j DNAT --to-destination {to}"


def after_dnat(live: Running) -> str:
    """The chain that a forwarded packet passes once it is translated; IPVS sends it itself."""
    return "OUTPUT" if live.cluster.proxy == "ipvs" else "FORWARD"


def service(live: Running, name: str) -> Service:
    """As the nodes keep it, with its addresses and ports."""
    listings = inventory.containers(live.client, live.name)
    kept = with_services(live.client, live.cluster, listings)
    return next(each for each in kept.services if each.name == name)


def asked(live: Running, words: str, protocol: str = "tcp") -> tuple[str, dict[str, Any]]:
    """Target and probe of ``far at node1``, ``balancer of kept``, or what it is already."""
    name, _, node = words.partition(" at ")
    if node:
        ports = service(live, name).ports
        port = next(each for each in ports if each.protocol == protocol.upper())
        return node, {"protocol": protocol, "port": port.node_port}
    if words.startswith("balancer of "):
        words = str(service(live, words.removeprefix("balancer of ")).load_balancer_ip)
    return words, {"protocol": protocol}


@contextmanager
def broken(
    live: Running, source: str, target: str, cause: str, place: str = "", said: str = ""
) -> Iterator[Callable[[], Trace]]:
    """Around a fault: before and after it all is well, and the trace that it makes tells why."""
    where, probe = asked(live, target)

    def judge() -> Trace:
        found = trace(live, source, where, **probe)
        assert not found.ok
        assert found.diagnosis is not None
        assert found.diagnosis.cause == cause, found.diagnosis
        assert found.diagnosis.place == (place or found.diagnosis.place), found.diagnosis
        assert said in f"{found.diagnosis.summary} {found.diagnosis.evidence}"
        return found

    well(live, source, target)
    yield judge
    well(live, source, target)


def well(live: Running, source: str, target: str) -> Trace:
    """A trace that is answered as it must be, now or soon."""
    where, probe = asked(live, target)
    end = time.monotonic() + 10 * SLOWNESS
    while True:
        found = trace(live, source, where, **probe)
        if found.ok or time.monotonic() > end:
            assert found.ok, (found.error, found.diagnosis, seen(found))
            return found
        time.sleep(0.2)


def announcer(live: Running, name: str) -> str:
    """The node that has a load balancer's address."""
    address = f"inet {service(live, name).load_balancer_ip}/32"
    return next(node for node in live.nodes if address in on(live, node, "ip -4 address show eth0"))
