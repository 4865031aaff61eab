"""Capturing on interfaces of nodes and pods: which are meant, and a beginning on all at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed.errors import UsageError
from testbed.node.parallel import each
from testbed.topology.model import Cluster
from testbed.topology.places import there_is
from testbed.verify.observed import Observed
from testbed.verify.recording import Feed, Recording

if TYPE_CHECKING:
    import docker

__all__ = ["ALL", "UPLINK", "Source", "capturing", "sources"]

UPLINK = "eth0"
ALL = "all"
"""Instead of an interface: every one that is up."""


@dataclass(frozen=True, slots=True)
class Source:
    """An interface to capture on."""

    name: str
    """In the file: ``node1/flannel.1``, ``default/web-0/eth0``."""
    node: str
    """The node, router or client on which the capture runs."""
    device: str
    pod: str = ""
    """The pod whose interface it is; empty: the node's own."""


def sources(cluster: Cluster, observed: Observed, words: Iterable[str]) -> tuple[Source, ...]:
    """Find the interfaces that ``NODE[:IFACE]`` and ``[NAMESPACE/]POD[:IFACE]`` mean.

    Without an interface it is ``eth0``; ``all`` is every one that is up. No words: the uplink of
    every node that runs.

    Raises:
        UsageError: some of them are not there; the message lists all of these, and what is there.
    """
    given = list(words)
    if not given:
        given = [node.name for node in cluster.nodes if node.name in observed.node_ips]
        if not given:
            raise UsageError(f"no node of testbed {cluster.name!r} runs")
    places = _places(cluster)
    others = set(cluster.machines) - {node.name for node in cluster.nodes}
    found: dict[Source, None] = {}
    problems: list[str] = []
    unknown = False
    for word in given:
        target, separator, device = word.partition(":")
        place = _place(target, places)
        node = places.get(place, "")
        if not place:
            owner, _, device = target.rpartition("/")
            hint = f"; for an interface write {owner}:{device}" if _place(owner, places) else ""
            problems.append(f"{word}: there is no node, router, client or pod {target!r}{hint}")
            unknown = True
        elif separator and not device:
            problems.append(f"{word}: an interface is missing after the colon")
        elif ":" in device:
            problems.append(f"{word}: there is one colon too many")
        elif node not in observed.node_ips and node not in others:
            problems.append(f"{word}: {node} does not run")
        else:
            pod = place if place != node else ""
            device = device or UPLINK
            found[Source(f"{place}/{device}", node, device, pod)] = None
    if problems:
        raise UsageError("\n".join([*problems, *([there_is(cluster)] if unknown else [])]))
    return tuple(found)


def _place(target: str, places: Mapping[str, str]) -> str:
    """A node's name or a pod's key; empty: there is none."""
    return next((name for name in (target, f"default/{target}") if name in places), "")


def _places(cluster: Cluster) -> dict[str, str]:
    """Node, router, client or pod → where it is; pods come last."""
    places = {pod.key: pod.node for pod in cluster.pods}
    return places | {name: name for name in cluster.machines}


@contextmanager
def capturing(
    client: docker.DockerClient,
    cluster: Cluster,
    sources: Sequence[Source],
    filter: str = "",  # noqa: A002 - the word of everybody who captures
    *,
    snaplen: int | None = None,
    live: bool = False,
) -> Iterator[Recording]:
    """Capture for the block; whatever is sent in it is captured, and nothing runs after it.

    Stop the recording in the block to have all of what was sent. With ``live``, packets are read as
    they come (:meth:`~Recording.batches`, :meth:`~Recording.stream`) and do not pile up. Of longer
    frames, ``snaplen`` bytes are kept (0: all; default: what a wire with an MTU of 1500 carries).

    Raises:
        UsageError: an interface is not there, or tcpdump refuses the filter; nothing runs.
        NodeError: a node cannot be asked.
    """
    feeds = [
        Feed(f"{cluster.name}-{node}", wanted)
        for node, wanted in _requests(sources, filter, snaplen).items()
    ]
    with ExitStack() as held:
        for feed in feeds:
            held.callback(feed.close)
        each(lambda feed: feed.begin(client), feeds)
        problems = dict.fromkeys(problem for feed in feeds for problem in feed.problems)
        if problems:
            raise UsageError("\n".join(problems))
        recording = Recording(feeds, live=live)
        held.callback(recording.close)
        yield recording


def _requests(sources: Sequence[Source], expression: str, snaplen: int | None) -> dict[str, str]:
    """Node → what its agent is asked."""
    nodes = dict.fromkeys(source.node for source in sources)
    return {
        node: json.dumps(
            {
                "interfaces": [
                    {"name": source.name, "device": source.device, "pod": source.pod}
                    for source in sources
                    if source.node == node
                ],
                "filter": expression,
                **({} if snaplen is None else {"snaplen": snaplen}),
            }
        )
        for node in nodes
    }
