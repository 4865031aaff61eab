"""Where kube-proxy's rules on a node fail to lead a packet on to an endpoint.

The rules are followed as a packet is, from the kernel's hook on; what they are called does not
matter, but by which way they are reached. IPVS has virtual servers instead, and gets what is for an
address of the node.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from testbed.packets.packet import TCP, UDP
from testbed.verify.trace.facts import Space
from testbed.verify.trace.model import NODE_PORT, Service
from testbed.verify.trace.rulesets import Rule, iptables

__all__ = ["gap"]

_PROTOCOLS = {"tcp": TCP, "udp": UDP}
_ELEMENT = re.compile(r"(?:([\d.]+) \. )?\b(tcp|udp|sctp) \. (\S+) : goto ([^\s,}]+)")
_OUTER = ("KUBE-FW-", "KUBE-EXT-", "external-")
"""Chains for addresses outside of the cluster lead to those that choose an endpoint."""
_PORTS = {"http": "80", "https": "443", "domain": "53", "ssh": "22", "ntp": "123"}
"""What ``nft list`` prints instead of numbers."""


def gap(facts: Mapping[str, Any], service: Service, *, forwarded: bool) -> tuple[str, ...]:
    """What is missing, in words; empty: nothing, as far as it can be read.

    Args:
        facts: the node's.
        service: where the packet is to go.
        forwarded: whether it comes from a pod, and not from the node itself.
    """
    if service.mode == "iptables":
        return tuple(_iptables(facts.get("iptables", ""), service, forwarded))
    if service.mode == "nftables":
        return tuple(_nftables(facts.get("nft", ""), service, forwarded))
    return tuple(_ipvs(facts, service))


def _iptables(text: str, service: Service, forwarded: bool) -> Iterator[str]:
    chains: dict[str, list[Rule]] = {}
    for rule in iptables(text):
        if rule.table == "nat":
            chains.setdefault(rule.chain, []).extend([rule] if rule.number else [])
    hook = "PREROUTING" if forwarded else "OUTPUT"
    reached = [rule for rule in chains.get(hook, ()) if _jump(rule) == "KUBE-SERVICES"]
    if not reached:
        yield f"nat {hook} has no jump to KUBE-SERVICES"
        return
    first = "KUBE-SERVICES"
    if service.kind == NODE_PORT:
        if not any(_jump(rule) == "KUBE-NODEPORTS" for rule in chains.get(first, ())):
            yield f"{first} has no jump to KUBE-NODEPORTS"
            return
        first = "KUBE-NODEPORTS"
    entries = [rule for rule in chains.get(first, ()) if _is_for(rule, service)]
    if not entries:
        yield f"{first} has no rule for {service.address}/{service.protocol}"
    for entry in entries:
        yield from _balanced(chains, _jump(entry), service)


def _balanced(chains: Mapping[str, list[Rule]], chain: str, service: Service) -> Iterator[str]:
    onward = dict.fromkeys(_jump(rule) for rule in chains.get(chain, ()))
    endpoints = [each for each in onward if each in chains and each != "KUBE-MARK-MASQ"]
    if endpoints and chain.startswith(_OUTER):
        for each in endpoints:
            yield from _balanced(chains, each, service)
        return
    if not endpoints:
        yield f"{chain}, the chain of svc/{service.key}, leads to no endpoint"
    for each in endpoints:
        if not any(rule.translates for rule in chains[each]):
            yield f"{each}, an endpoint's chain of svc/{service.key}, has no DNAT rule"


def _jump(rule: Rule) -> str:
    found = re.search(r" -[jg] (\S+)$", f" {rule.text}") or re.search(r" -[jg] (\S+)", rule.text)
    return found[1] if found else ""


def _is_for(rule: Rule, service: Service) -> bool:
    match = rule.match
    port = (service.port, service.port)
    to = match.destination
    address = str(to.network_address) if to is not None and to.prefixlen == 32 else ""
    return (
        address == ("" if service.kind == NODE_PORT else service.ip)
        and match.protocol == _PROTOCOLS.get(service.protocol)
        and port in match.destination_ports
        and _jump(rule) != "KUBE-MARK-MASQ"
    )


def _nftables(text: str, service: Service, forwarded: bool) -> Iterator[str]:
    table = re.search(r"^table ip kube-proxy \{.*?^\}", text, re.MULTILINE | re.DOTALL)
    if table is None:
        yield "there is no table `ip kube-proxy`"
        return
    chains = _chains(table[0])
    hook = "nat-prerouting" if forwarded else "nat-output"
    if not any("services" in rule for rule in chains.get(hook, ())):
        yield f"{hook} has no jump to services"
        return
    name = "service-nodeports" if service.kind == NODE_PORT else "service-ips"
    verdicts = {
        (ip, protocol, _PORTS.get(port, port)): chain.strip('"')
        for ip, protocol, port, chain in _ELEMENT.findall(_map(table[0], name))
    }
    address = "" if service.kind == NODE_PORT else service.ip
    chain = verdicts.get((address, service.protocol, str(service.port)))
    if chain is None:
        yield f"the map {name} has no element for {service.address}/{service.protocol}"
        return
    yield from _chosen(chains, chain, service)


def _map(table: str, name: str) -> str:
    found = re.search(rf"^\s*map {name} \{{.*?^\t\}}", table, re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


def _chosen(chains: Mapping[str, list[str]], chain: str, service: Service) -> Iterator[str]:
    onward = re.findall(r"goto ([^\s,}]+)", " ".join(chains.get(chain, ())))
    endpoints = list(dict.fromkeys(each.strip('"') for each in onward))
    if endpoints and chain.startswith(_OUTER):
        for each in endpoints:
            yield from _chosen(chains, each, service)
        return
    if not endpoints:
        yield f"{chain}, the chain of svc/{service.key}, leads to no endpoint"
    for each in endpoints:
        if not any("dnat to" in rule for rule in chains.get(each, ())):
            yield f"{each}, an endpoint's chain of svc/{service.key}, has no dnat rule"


def _chains(table: str) -> dict[str, list[str]]:
    """Chain → its rules, a line each."""
    found: dict[str, list[str]] = {}
    chain = ""
    for line in (each.strip() for each in table.splitlines()):
        if line.startswith("chain ") and line.endswith("{"):
            chain = line.split()[1].strip('"')
            found[chain] = []
        elif line == "}":
            chain = ""
        elif chain:
            found[chain].append(line)
    return found


def _ipvs(facts: Mapping[str, Any], service: Service) -> Iterator[str]:
    text = facts.get("ipvs", "")
    if not text:
        return
    if not Space("", after=facts).owns(service.ip):
        yield f"no interface has {service.ip}, without which IPVS does not get it"
    where = f"{service.address}/{service.protocol}"
    servers = _real_servers(text, service)
    if servers is None:
        yield f"IPVS has no virtual server for {where}"
    elif not servers:
        yield f"the virtual server for {where} leads to no endpoint"
    elif not any(servers.values()):
        yield f"the virtual server for {where} gives {', '.join(servers)} weight 0"


def _real_servers(text: str, service: Service) -> dict[str, int] | None:
    """``10.244.0.5:8080`` → weight, of ``ipvsadm --save``; ``None``: no such virtual server."""
    key = f"-{service.protocol[:1]} {service.address} "
    lines = text.splitlines()
    if not any(line.startswith(f"-A {key}") for line in lines):
        return None
    options = [line.split() for line in lines if line.startswith(f"-a {key}")]
    return {words[words.index("-r") + 1]: int(words[words.index("-w") + 1]) for words in options}
