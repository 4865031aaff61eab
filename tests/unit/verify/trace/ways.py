"""The ways of packets as tables, written by hand from what the kernel shows.

Of each pair of ends the hops of the request, and behind ``|`` those of the reply. ``a:eth0>`` is a
packet that leaves by eth0 of pod a, ``node1:eth0<*`` one that comes in encapsulated; TUN stands for
the tunnel's device. Pods a and b are on node1, c is on node2 in the same rack, d on node3 behind
the router; ``host`` is a hostNetwork pod of node2.
"""

from __future__ import annotations

import re

LOCAL = """
a a
    a:lo> a:lo< | a:lo> a:lo<
node1 node1
    node1:lo> node1:lo< | node1:lo> node1:lo<
node1 node2
    node1:eth0> node2:eth0< | node2:eth0> node1:eth0<
node1 host
    node1:eth0> node2:eth0< | node2:eth0> node1:eth0<
host node2
    node2:lo> node2:lo< | node2:lo> node2:lo<
node1 tor
    node1:eth0> tor:eth0< | tor:eth0> node1:eth0<
tor node3
    tor:eth1> node3:eth0< | node3:eth0> tor:eth1<
node1 node3
    node1:eth0> tor:eth0< tor:eth1> node3:eth0< | node3:eth0> tor:eth1< tor:eth0> node1:eth0<
"""
"""What no CNI changes."""

BRIDGE = """
a b
    a:eth0> node1:vetha< node1:vethb> b:eth0< | b:eth0> node1:vethb< node1:vetha> a:eth0<
a node1
    a:eth0> node1:vetha< node1:cni0< | node1:cni0> node1:vetha> a:eth0<
node1 a
    node1:cni0> node1:vetha> a:eth0< | a:eth0> node1:vetha< node1:cni0<
a node2
    a:eth0> node1:vetha< node1:cni0< node1:eth0> node2:eth0<
  | node2:eth0> node1:eth0< node1:cni0> node1:vetha> a:eth0<
a host
    a:eth0> node1:vetha< node1:cni0< node1:eth0> node2:eth0<
  | node2:eth0> node1:eth0< node1:cni0> node1:vetha> a:eth0<
a tor
    a:eth0> node1:vetha< node1:cni0< node1:eth0> tor:eth0<
  | tor:eth0> node1:eth0< node1:cni0> node1:vetha> a:eth0<
a node3
    a:eth0> node1:vetha< node1:cni0< node1:eth0> tor:eth0< tor:eth1> node3:eth0<
  | node3:eth0> tor:eth1< tor:eth0> node1:eth0< node1:cni0> node1:vetha> a:eth0<
tor a
    |
"""
"""flannel, whatever its backend; masquerading keeps node addresses out of the tunnel."""

BRIDGE_PLAIN = """
a c
    a:eth0> node1:vetha< node1:cni0< node1:eth0> node2:eth0< node2:cni0> node2:vethc> c:eth0<
  | c:eth0> node2:vethc< node2:cni0< node2:eth0> node1:eth0< node1:cni0> node1:vetha> a:eth0<
node1 c
    node1:eth0> node2:eth0< node2:cni0> node2:vethc> c:eth0<
  | c:eth0> node2:vethc< node2:cni0< node2:eth0> node1:eth0<
host a
    node2:eth0> node1:eth0< node1:cni0> node1:vetha> a:eth0<
  | a:eth0> node1:vetha< node1:cni0< node1:eth0> node2:eth0<
"""

BRIDGE_TUNNEL = """
a c
    a:eth0> node1:vetha< node1:cni0< node1:TUN> node1:eth0>* node2:eth0<* node2:TUN< node2:cni0>
    node2:vethc> c:eth0<
  | c:eth0> node2:vethc< node2:cni0< node2:TUN> node2:eth0>* node1:eth0<* node1:TUN< node1:cni0>
    node1:vetha> a:eth0<
node1 c
    node1:TUN> node1:eth0>* node2:eth0<* node2:TUN< node2:cni0> node2:vethc> c:eth0<
  | c:eth0> node2:vethc< node2:cni0< node2:TUN> node2:eth0>* node1:eth0<* node1:TUN<
host a
    node2:TUN> node2:eth0>* node1:eth0<* node1:TUN< node1:cni0> node1:vetha> a:eth0<
  | a:eth0> node1:vetha< node1:cni0< node1:TUN> node1:eth0>* node2:eth0<* node2:TUN<
"""

BRIDGE_TUNNEL_FAR = """
a d
    a:eth0> node1:vetha< node1:cni0< node1:TUN> node1:eth0>* tor:eth0<* tor:eth1>* node3:eth0<*
    node3:TUN< node3:cni0> node3:vethd> d:eth0<
  | d:eth0> node3:vethd< node3:cni0< node3:TUN> node3:eth0>* tor:eth1<* tor:eth0>* node1:eth0<*
    node1:TUN< node1:cni0> node1:vetha> a:eth0<
node1 d
    node1:TUN> node1:eth0>* tor:eth0<* tor:eth1>* node3:eth0<* node3:TUN< node3:cni0> node3:vethd>
    d:eth0<
  | d:eth0> node3:vethd< node3:cni0< node3:TUN> node3:eth0>* tor:eth1<* tor:eth0>* node1:eth0<*
    node1:TUN<
"""

ROUTED = """
a b
    a:eth0> node1:vetha< node1:vethb> b:eth0< | b:eth0> node1:vethb< node1:vetha> a:eth0<
a node1
    a:eth0> node1:vetha< | node1:vetha> a:eth0<
node1 a
    node1:vetha> a:eth0< | a:eth0> node1:vetha<
"""
"""Calico and kindnet: no bridge."""

ROUTED_NAT = """
a node2
    a:eth0> node1:vetha< node1:eth0> node2:eth0< | node2:eth0> node1:eth0< node1:vetha> a:eth0<
a host
    a:eth0> node1:vetha< node1:eth0> node2:eth0< | node2:eth0> node1:eth0< node1:vetha> a:eth0<
a tor
    a:eth0> node1:vetha< node1:eth0> tor:eth0< | tor:eth0> node1:eth0< node1:vetha> a:eth0<
a node3
    a:eth0> node1:vetha< node1:eth0> tor:eth0< tor:eth1> node3:eth0<
  | node3:eth0> tor:eth1< tor:eth0> node1:eth0< node1:vetha> a:eth0<
"""

ROUTED_PLAIN = """
a c
    a:eth0> node1:vetha< node1:eth0> node2:eth0< node2:vethc> c:eth0<
  | c:eth0> node2:vethc< node2:eth0> node1:eth0< node1:vetha> a:eth0<
node1 c
    node1:eth0> node2:eth0< node2:vethc> c:eth0< | c:eth0> node2:vethc< node2:eth0> node1:eth0<
"""

ROUTED_TUNNEL = """
a c
    a:eth0> node1:vetha< node1:TUN> node1:eth0>* node2:eth0<* node2:TUN< node2:vethc> c:eth0<
  | c:eth0> node2:vethc< node2:TUN> node2:eth0>* node1:eth0<* node1:TUN< node1:vetha> a:eth0<
node1 c
    node1:TUN> node1:eth0>* node2:eth0<* node2:TUN< node2:vethc> c:eth0<
  | c:eth0> node2:vethc< node2:TUN> node2:eth0>* node1:eth0<* node1:TUN<
host a
    node2:TUN> node2:eth0>* node1:eth0<* node1:TUN< node1:vetha> a:eth0<
  | a:eth0> node1:vetha< node1:TUN> node1:eth0>* node2:eth0<* node2:TUN<
"""

ROUTED_TUNNEL_FAR = """
a d
    a:eth0> node1:vetha< node1:TUN> node1:eth0>* tor:eth0<* tor:eth1>* node3:eth0<* node3:TUN<
    node3:vethd> d:eth0<
  | d:eth0> node3:vethd< node3:TUN> node3:eth0>* tor:eth1<* tor:eth0>* node1:eth0<* node1:TUN<
    node1:vetha> a:eth0<
node1 d
    node1:TUN> node1:eth0>* tor:eth0<* tor:eth1>* node3:eth0<* node3:TUN< node3:vethd> d:eth0<
  | d:eth0> node3:vethd< node3:TUN> node3:eth0>* tor:eth1<* tor:eth0>* node1:eth0<* node1:TUN<
"""

ROUTED_PLAIN_FAR = """
a d
    a:eth0> node1:vetha< node1:eth0> tor:eth0< tor:eth1> node3:eth0< node3:vethd> d:eth0<
  | d:eth0> node3:vethd< node3:eth0> tor:eth1< tor:eth0> node1:eth0< node1:vetha> a:eth0<
node1 d
    node1:eth0> tor:eth0< tor:eth1> node3:eth0< node3:vethd> d:eth0<
  | d:eth0> node3:vethd< node3:eth0> tor:eth1< tor:eth0> node1:eth0<
"""

LEARNED = """
tor a
    tor:eth0> node1:eth0< node1:vetha> a:eth0< | a:eth0> node1:vetha< node1:eth0> tor:eth0<
tor d
    tor:eth1> node3:eth0< node3:vethd> d:eth0< | d:eth0> node3:vethd< node3:eth0> tor:eth1<
"""
"""A router with an AS number: past every tunnel."""

UNLEARNED = """
tor a
    |
"""


BRIDGED = LOCAL + BRIDGE
MASKED = LOCAL + ROUTED + ROUTED_NAT


def table(text: str, tunnel: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Of each pair of ends the request and the reply; ``tunnel`` is the device's name."""
    rows = {}
    for entry in re.split(r"\n(?=\w)", text.replace("TUN", tunnel).strip()):
        ends, legs = entry.split("\n", 1)
        source, target = ends.split()
        there, back = (" ".join(leg.split()) for leg in legs.split("|"))
        rows[source, target] = (there, back)
    return rows
