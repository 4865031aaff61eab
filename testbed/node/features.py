"""Finding out, once per engine, what nodes can do: a short-lived container of the node image.

It has a node's own privileges: privileged where the engine lets it, else the capability set. The
answer is kept as a label on an empty volume, named by everything that it depends on, so that later
calls cost two requests (6 ms) and nothing is stored outside the engine.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import testbed
from testbed.dataplane.features import KERNEL_FLAGS, Features
from testbed.errors import MissingCapabilityError, NodeError
from testbed.node.engine import is_local
from testbed.node.host import tail
from testbed.node.privileges import host_config_arguments

if TYPE_CHECKING:
    import docker

__all__ = ["LABEL", "detect"]

LABEL = "testbed.features"
_IMAGE_LABEL = "testbed.features.image"
_PROBE_LABEL = "testbed.probe"
_PROBE_SECONDS = 120
_MODULES = re.compile(
    r"^(act_mirred|br_netfilter|cls_u32|dummy|ifb|ip6?_gre|ip_set|ip_tables|ip_vs|ipip|iptable_\w+|"
    r"ipvlan|macvlan|nf_tables|nft_queue|overlay|sch_\w+|sctp|tun|veth|vxlan|wireguard) ",
    re.MULTILINE,
)
"""Modules that, loaded or unloaded by somebody, change the answer, in /proc/modules."""
_ATTEMPTS = ((True, True), (False, True), (False, False))
"""Privileged or not, with or without the TUN device: the best first."""


def detect(client: docker.DockerClient, image: str, refresh: bool = False) -> Features:
    """Return what nodes of ``image`` can do on this engine; ``refresh`` asks the kernel again.

    Raises:
        MissingCapabilityError: the engine refuses even the capability set.
        NodeError: the probe failed.
    """
    from docker.errors import NotFound

    info = client.api.info()
    if not refresh:
        with suppress(NotFound, ValueError, KeyError, TypeError):
            volume = client.api.inspect_volume(_volume(client, info, image))
            return Features.from_json(volume["Labels"][LABEL])
    found = _probe(client, image, info)
    _remember(client, info, image, found)
    return found


def _probe(client: docker.DockerClient, image: str, info: dict[str, Any]) -> Features:
    """Start the probe with the best privileges that the engine grants."""
    cgroup_version = str(info.get("CgroupVersion", "1"))
    refusals: dict[bool, str] = {}
    for privileged, tun in _ATTEMPTS:
        if not tun and "/dev/net/tun" not in refusals[privileged]:
            break  # the host has the device: it is not what was wrong
        arguments = host_config_arguments(privileged, cgroup_version=cgroup_version, tun=tun)
        refusal, answer = _run(client, image, arguments)
        if refusal:
            refusals[privileged] = refusal
            continue
        reasons = {**answer["reasons"], **({"privileged": refusals[True]} if refusals else {})}
        return Features(
            **{name: bool(answer["flags"].get(name)) for name in KERNEL_FLAGS},
            privileged=privileged,
            kernel_release=str(info.get("KernelVersion", "")),
            engine_version=str(info.get("ServerVersion", "")),
            api_version=str(client.api.api_version),
            cgroup_version=cgroup_version,
            storage_driver=str(info.get("Driver", "")),
            architecture=str(info.get("Architecture", "")),
            reasons=reasons,
        )
    raise MissingCapabilityError(
        "this Docker engine starts containers neither privileged nor with the capabilities that a "
        f"node needs.\n  privileged: {refusals[True]}\n  capabilities: {refusals[False]}\n"
        "Use an engine that runs as root on a machine of its own, not inside a restricted "
        "container (DOCKER_HOST chooses one)."
    )


def _run(
    client: docker.DockerClient, image: str, arguments: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Run the probe; return why the engine refused to start it, or its answer."""
    from docker.errors import APIError, ImageNotFound

    api = client.api
    script = (Path(testbed.__file__).parent / "agent" / "features.py").read_text()
    config = api.create_host_config(network_mode="none")
    config.update(arguments)
    try:
        container = api.create_container(
            image,
            entrypoint=["python3", "-IS", "-c"],
            command=[script],
            labels={_PROBE_LABEL: "features"},
            host_config=config,
        )["Id"]
    except ImageNotFound as error:
        raise NodeError(f"there is no image {image}. Run `testbed setup`.") from error
    except APIError as error:
        return _brief(str(error.explanation or error)), {}
    try:
        api.start(container)
        code = int(api.wait(container, timeout=_PROBE_SECONDS)["StatusCode"])
        output = api.logs(container, stdout=True, stderr=code != 0).decode(errors="replace")
    except APIError as error:
        return _brief(str(error.explanation or error)), {}
    finally:
        with suppress(APIError):
            api.remove_container(container, force=True, v=True)
    return "", _parsed(code, output)


def _brief(words: str) -> str:
    """The end of the engine's chain of errors, where the reason stands."""
    return words.rpartition("container process: ")[2].removesuffix(": unknown").strip()


def _parsed(code: int, output: str) -> dict[str, Any]:
    try:
        answer = json.loads(output) if code == 0 else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not answer.keys() >= {"flags", "reasons"}:
        raise NodeError(
            f"the feature probe of the node image failed with code {code}:\n{tail(output)}\n"
            "Run `testbed image build --force`; if that does not help, report it with these words."
        )
    return answer


def _volume(client: docker.DockerClient, info: dict[str, Any], image: str) -> str:
    """The name of the volume that holds the answer, from everything the answer depends on."""
    modules: list[str] = []
    if is_local(client):
        with suppress(OSError):
            modules = sorted(_MODULES.findall(Path("/proc/modules").read_text()))
    facts = [info.get(key) for key in ("ID", "KernelVersion", "ServerVersion")]
    shape = [each.name for each in fields(Features)]
    key = json.dumps([facts, image, modules, shape]).encode()
    return f"testbed-features-{hashlib.sha256(key).hexdigest()[:12]}"


def _remember(
    client: docker.DockerClient, info: dict[str, Any], image: str, found: Features
) -> None:
    from docker.errors import APIError

    # probing may have loaded modules, so the name is not always the one that was looked up
    name = _volume(client, info, image)
    images = {tag for each in client.api.images() for tag in each.get("RepoTags") or ()}
    for volume in client.api.volumes(filters={"label": _IMAGE_LABEL})["Volumes"] or ():
        of = volume["Labels"][_IMAGE_LABEL]
        if of == image or of not in images:
            with suppress(APIError):  # another process may be just as far
                client.api.remove_volume(volume["Name"])
    client.api.create_volume(name, labels={LABEL: found.to_json(), _IMAGE_LABEL: image})
