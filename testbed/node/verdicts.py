"""Which of testbed's abilities work with which kernel features: one table, read by ``doctor``."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.dataplane.features import Features
from testbed.node.privileges import CAPABILITIES

__all__ = ["DRIVERS", "NEEDS", "SUBSTITUTES", "Verdict", "verdicts"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one of testbed's abilities works here."""

    feature: str
    state: str
    """``ok``, ``degraded`` (it works, another way) or ``missing``."""
    reason: str = ""
    remedy: str = ""


_NODES = "privileged nodes"
_IPIP = "ipip driver"
_IPIP_REMEDY = (
    "Nothing needs to be done for IPIP: the eBPF programs put the same packets on the wire. With "
    "`modprobe ipip` on the Docker host, `--ipip auto` takes the kernel's own driver."
)
_PODS = "namespaces veth iptables_nft"
NEEDS = {
    "pods (sandboxes, CNI)": "namespaces veth overlay_in_container",
    _IPIP: "ipip",
    "flannel vxlan": f"{_PODS} br_netfilter bridge vxlan",
    "flannel host-gw": f"{_PODS} br_netfilter bridge",
    "flannel ipip": f"{_PODS} br_netfilter bridge ipip",
    "flannel wireguard": f"{_PODS} br_netfilter bridge wireguard",
    "calico ipip": f"{_PODS} ipset ipip",
    "calico vxlan": f"{_PODS} ipset vxlan",
    "calico none": f"{_PODS} ipset",
    "kindnet": _PODS,
    "hostPort": f"{_PODS} br_netfilter",
    "bandwidth": "tbf ifb mirred",
}
"""Abilities, and the kernel features without which they do not work."""

SUBSTITUTES = {"ipip": "ipip_ebpf"}
"""Features that another one can stand for, as ``--ipip auto`` chooses."""

DRIVERS = {
    "bridge": ("bridge", "CONFIG_BRIDGE"),
    "veth": ("veth", "CONFIG_VETH"),
    "vxlan": ("vxlan", "CONFIG_VXLAN"),
    "ipip": ("ipip", "CONFIG_NET_IPIP"),
    "gre": ("ip_gre", "CONFIG_NET_IPGRE"),
    "wireguard": ("wireguard", "CONFIG_WIREGUARD"),
    "dummy": ("dummy", "CONFIG_DUMMY"),
    "ifb": ("ifb", "CONFIG_IFB"),
    "macvlan": ("macvlan", "CONFIG_MACVLAN"),
    "ipvlan": ("ipvlan", "CONFIG_IPVLAN"),
    "tun": ("tun", "CONFIG_TUN"),
    "ip_vs": ("ip_vs", "CONFIG_IP_VS"),
    "ipset": ("ip_set", "CONFIG_IP_SET"),
    "iptables_nft": ("nft_compat", "CONFIG_NFT_COMPAT"),
    "iptables_legacy": ("ip_tables", "CONFIG_IP_NF_IPTABLES_LEGACY"),
    "nft": ("nf_tables", "CONFIG_NF_TABLES"),
    "nfqueue": ("nft_queue", "CONFIG_NFT_QUEUE"),
    "br_netfilter": ("br_netfilter", "CONFIG_BRIDGE_NETFILTER"),
    "netem": ("sch_netem", "CONFIG_NET_SCH_NETEM"),
    "tbf": ("sch_tbf", "CONFIG_NET_SCH_TBF"),
    "htb": ("sch_htb", "CONFIG_NET_SCH_HTB"),
    "clsact": ("sch_ingress", "CONFIG_NET_SCH_INGRESS"),
    "mirred": ("act_mirred", "CONFIG_NET_ACT_MIRRED"),
    "sctp": ("sctp", "CONFIG_IP_SCTP"),
    "overlay_in_container": ("overlay", "CONFIG_OVERLAY_FS"),
}
"""The kernel module of a feature, and the option that builds it."""


def verdicts(found: Features | None, problem: str, has_modules: bool | None) -> tuple[Verdict, ...]:
    """Judge every ability; ``found`` is ``None`` where nothing could be probed, for ``problem``.

    ``has_modules``: whether the host has modules of its kernel to load (``None``: not known).
    """
    if found is None:
        why, _, remedy = problem.partition("\n")
        return tuple(Verdict(ability, "missing", why, remedy) for ability in (_NODES, *NEEDS))
    judged = (_verdict(*need, found, has_modules) for need in NEEDS.items())
    return (_privileges(found), *judged)


def _privileges(found: Features) -> Verdict:
    if found.privileged:
        return Verdict(_NODES, "ok")
    words = found.reasons.get("privileged", "")
    return Verdict(
        _NODES,
        "degraded",
        f"the engine starts no privileged container ({words}); nodes get {', '.join(CAPABILITIES)}",
        "Nothing needs to be done: every ability below was probed with these capabilities.",
    )


def _verdict(ability: str, needs: str, found: Features, has_modules: bool | None) -> Verdict:
    missing = sorted({*needs.split()} - found.available)
    replaced = [name for name in missing if SUBSTITUTES.get(name) in found.available]
    missing = [name for name in missing if name not in replaced]
    if missing:
        wanted = missing + [SUBSTITUTES[name] for name in missing if name in SUBSTITUTES]
        reason = "; ".join(_reason(name, found) for name in wanted)
        return Verdict(ability, "missing", reason, _remedy(missing, found, has_modules))
    if replaced:
        why = "by eBPF programs, as the kernel has no ipip driver"
        if ability == _IPIP:
            why = f"by eBPF programs: {_reason('ipip', found)}"
        return Verdict(ability, "degraded", why, _IPIP_REMEDY)
    return Verdict(ability, "ok")


def _reason(name: str, found: Features) -> str:
    module, option = DRIVERS.get(name, ("", ""))
    words = found.reasons.get(name, "")
    what = f"kernel {found.kernel_release} has no {name} ({option})" if module else f"no {name}"
    return f"{what}: {words}" if words else what


def _remedy(missing: list[str], found: Features, has_modules: bool | None) -> str:
    modules = [DRIVERS[name][0] for name in missing if name in DRIVERS]
    if not modules:
        return "Use an engine whose containers may do this (`testbed doctor` shows the error)."
    if has_modules is False:
        return (
            f"This kernel has no loadable modules: use one that is built with {_options(missing)}, "
            "such as Debian's or Ubuntu's own."
        )
    return (
        f"On the Docker host: `modprobe -a {' '.join(modules)}`; if it does not find them, install "
        f"linux-modules-extra-{found.kernel_release} (Ubuntu), or another kernel."
    )


def _options(missing: list[str]) -> str:
    return ", ".join(DRIVERS[name][1] for name in missing if name in DRIVERS)
