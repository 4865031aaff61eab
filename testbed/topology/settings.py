"""The ``x-testbed`` section of the Compose file.

============== ===================================================== =====================
name           the testbed's name                                    Compose's, the file's
cni            a planner of :mod:`testbed.cni`                       required
backend        its backend: a name, or a mapping of type and options the CNI's first
cluster_cidr   the pods' addresses, whichever CNI                    10.244.0.0/16
node_cidr_mask prefix length of a node's share of them               24
service_cidr   the services' addresses                               10.96.0.0/16
manifests      files (relative to this one) and objects              none
default_pods   netexec pods on every node                            2
ipip           driver of IP-in-IP tunnels: kernel, ebpf, auto        auto
proxy          kube-proxy's mode, a planner of :mod:`testbed.proxy`  iptables
clients        containers on the underlay that are no nodes          none
load_balancer  pool and announcement of Services of that type        near the subnet's end
============== ===================================================== =====================

Calico's own default pool is 192.168.0.0/16; here its clusters too are numbered from 10.244.0.0/16,
so that topologies differ only where they say so. It cuts the pool into blocks, so its ``backend``
has ``block_size`` (default 26) where others have ``node_cidr_mask``.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network

from testbed.topology import names
from testbed.topology.clients import read_clients
from testbed.topology.cnis import Cnis, OptionType, Traits
from testbed.topology.declared import Cidr, ManifestReference, Settings
from testbed.topology.load_balancer import read_load_balancer
from testbed.topology.model import Backend
from testbed.topology.section import Section, alternatives
from testbed.topology.source import BROKEN, Place, describe, quote

__all__ = ["DRIVERS", "MAX_PODS", "SETTINGS", "read_settings", "unknown_proxy", "without_tunnels"]

SETTINGS = (
    *("name", "cni", "backend", "cluster_cidr", "node_cidr_mask", "service_cidr"),
    *("manifests", "default_pods", "ipip", "proxy", "clients", "load_balancer"),
)
_RANGES = {
    "vni": (1, 16_777_215),
    "port": (1, 65535),
    "mtu": (576, 65535),
    "block_size": (20, 32),
    "keepalive": (0, 65535),
    "max_restart_time": (1, 3600),
}
DRIVERS = ("auto", "kernel", "ebpf")
"""What makes IP-in-IP tunnels."""
_MAX_MASK = 29
"""A longer prefix leaves no room: the network, the bridge and the broadcast address take three."""
_BLOCK_SIZE = 26
"""Calico's default."""
MAX_PODS = 65536
_PROXY = "iptables"
"""kube-proxy's own default on Linux."""


def read_settings(
    document: Section, default_name: str, cnis: Cnis, proxies: tuple[str, ...]
) -> Settings:
    """Read ``x-testbed``; what is wrong is reported and replaced by its default."""
    section = document.section("x-testbed")
    if document.get("x-testbed") is None:
        document.problem("x-testbed", "missing; write at least `x-testbed: {cni: flannel}`")
    given = section is not None
    section = section or Section({}, document.place, "x-testbed", document.problems)
    section.only(SETTINGS)
    cni = _cni(section, cnis, given)
    traits = cnis.get(cni, Traits({}))
    backend = _backend(section, cni, traits.backends) if cni else Backend("")
    share = _block_size if traits.blocks else _mask
    mask, mask_place = share(section, backend)
    return Settings(
        place=section.place,
        name=_name(document, section, default_name),
        cni=cni,
        traits=traits,
        backend=backend,
        backend_place=section.place_of("backend"),
        cluster=_cidr(section, "cluster_cidr", "10.244.0.0/16"),
        node_cidr_mask=mask,
        mask_place=mask_place,
        service=_service_cidr(section),
        manifests=tuple(_manifests(section)),
        default_pods=_number(section, "default_pods", 0, MAX_PODS, 2),
        pods_place=section.place_of("default_pods"),
        ipip=_driver(section, backend),
        proxy=_proxy(section, proxies),
        proxies=proxies,
        clients=tuple(read_clients(section)),
        load_balancer=read_load_balancer(section),
        load_balancer_place=section.place_of("load_balancer"),
    )


def _number(section: Section, key: str, low: int, high: int, default: int) -> int | None:
    return default if section.get(key) is None else section.integer(key, low, high)


def _mask(section: Section, backend: Backend) -> tuple[int | None, Place]:
    del backend  # only blocks are its own
    mask = _number(section, "node_cidr_mask", 1, _MAX_MASK, 24)
    return mask, section.place_of("node_cidr_mask")


def _block_size(section: Section, backend: Backend) -> tuple[int | None, Place]:
    if section.get("node_cidr_mask") is not None:
        section.problem(
            "node_cidr_mask",
            "this CNI numbers pods from blocks of its own; write block_size under backend",
        )
    given = section.get("backend")
    options = given.data if given is not None and isinstance(given.data, Mapping) else {}
    value = options.get("block_size")
    if value is None or value.data is None:
        return _BLOCK_SIZE, section.place_of("backend")
    size = backend.options.get("block_size")
    return size if isinstance(size, int) else None, value.place


def _name(document: Section, section: Section, default: str) -> str:
    """``x-testbed.name``, else Compose's own ``name``, else the file's name."""
    compose_name = document.valid("name", names.dns_label)
    name = section.valid("name", names.dns_label)
    if name and compose_name and name != compose_name:
        section.problem(
            "name", f"{quote(name)} differs from the file's name: {quote(compose_name)}; keep one"
        )
    if section.get("name") is None and document.get("name") is None and names.dns_label(default):
        section.problem(
            "name",
            f"missing, and the file's name {quote(default)} is not a DNS label (RFC 1123); "
            "write the testbed's name here",
        )
    return name or compose_name or default


def _cni(section: Section, cnis: Cnis, given: bool) -> str:
    known = ", ".join(sorted(cnis))
    if given and section.get("cni") is None:
        section.problem("cni", f"missing; write one of: {known}")
    cni = section.text("cni")
    if cni is not None and cni not in cnis:
        section.problem("cni", f"there is no CNI {quote(cni)}{alternatives(cni, sorted(cnis))}")
        return ""
    return cni or ""


def _backend(
    section: Section, cni: str, backends: Mapping[str, Mapping[str, OptionType]]
) -> Backend:
    default = next(iter(backends), "")
    value = section.get("backend")
    if value is None:
        return Backend(default)
    if isinstance(value.data, str):
        return Backend(_backend_type(section, "backend", cni, backends))
    if not isinstance(value.data, Mapping):
        section.problem(
            "backend",
            f"must be a name or a mapping with type and options, not {describe(value.data)}",
        )
        return Backend(default)
    nested = Section(value.data, value.place, section.path("backend"), section.problems)
    if nested.get("type") is None:
        nested.problem("type", f"missing; write one of: {', '.join(backends)}")
        return Backend(default)
    kind = _backend_type(nested, "type", cni, backends)
    return Backend(kind, _options(nested, kind, backends[kind])) if kind else Backend(default)


def _backend_type(
    section: Section, key: str, cni: str, backends: Mapping[str, Mapping[str, OptionType]]
) -> str:
    kind = section.text(key)
    if kind is not None and kind not in backends:
        hint = alternatives(kind, backends, "its backends")
        section.problem(key, f"{cni} has no backend {quote(kind)}{hint}")
        return ""
    return kind or ""


def _options(
    section: Section, kind: str, types: Mapping[str, OptionType]
) -> dict[str, int | bool | str]:
    found: dict[str, int | bool | str] = {}
    for key in section.values:
        if key == "type":
            continue
        if key not in types:
            hint = alternatives(key, types, "its options")
            section.problem(key, f"not an option of backend {kind}{hint}")
            continue
        value = _option(section, key, types[key])
        if value is not None:
            found[key] = value
    return found


def _option(section: Section, key: str, kind: OptionType) -> int | bool | str | None:
    if isinstance(kind, tuple):
        return section.choice(key, kind, kind[0])
    if kind is bool:
        return section.flag(key)
    if kind is int:
        return section.integer(key, *_RANGES.get(key, (0, 2**31 - 1)))
    return section.text(key)


def _driver(section: Section, backend: Backend) -> str:
    driver = section.choice("ipip", DRIVERS, "auto")
    if section.get("ipip") is not None and (error := without_tunnels(backend)):
        section.problem("ipip", error)
    return driver


def _proxy(section: Section, proxies: tuple[str, ...]) -> str:
    proxy = section.text("proxy")
    if proxy is not None and (error := unknown_proxy(proxy, proxies)):
        section.problem("proxy", error)
        return _PROXY
    return proxy or _PROXY


def unknown_proxy(proxy: str, proxies: tuple[str, ...]) -> str | None:
    """What is wrong with a mode of kube-proxy, or None."""
    if proxy in proxies:
        return None
    return f"kube-proxy has no mode {quote(proxy)}{alternatives(proxy, proxies, 'its modes')}"


def without_tunnels(backend: Backend) -> str | None:
    """Why no driver of IP-in-IP tunnels can be chosen for ``backend``, or None."""
    if backend.type in ("", "ipip"):
        return None
    return f"backend {backend.type} has no IP-in-IP tunnels; remove it"


def _cidr(section: Section, key: str, default: str) -> Cidr | None:
    network = IPv4Network(default) if section.get(key) is None else section.network(key)
    return Cidr(key, network, section.place_of(key)) if network else None


def _service_cidr(section: Section) -> Cidr | None:
    cidr = _cidr(section, "service_cidr", "10.96.0.0/16")
    if cidr and not 12 <= cidr.network.prefixlen <= _MAX_MASK:
        section.problem(
            "service_cidr",
            f"{cidr.network} has {cidr.network.num_addresses} addresses; Kubernetes takes prefix "
            "lengths from 12 to 29: write for example 10.96.0.0/16",
        )
    return cidr


def _manifests(section: Section) -> list[ManifestReference]:
    found = []
    for where, value in section.items("manifests"):
        if isinstance(value.data, Mapping):
            found.append(ManifestReference(value, where, value.place))
        elif isinstance(value.data, str) and value.data:
            found.append(ManifestReference(value.data, where, value.place))
        elif value.data is not BROKEN:
            section.problems.add(
                value.place,
                f"{where}: must be a file's path or an object, not {describe(value.data)}",
            )
    return found
