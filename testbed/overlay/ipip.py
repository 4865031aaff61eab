"""IP-in-IP, protocol 4: which driver makes the tunnel."""

from __future__ import annotations

from testbed.dataplane.features import Features

__all__ = ["OVERHEAD", "driver"]

OVERHEAD = 20
"""Bytes: the outer IPv4 header."""


def driver(requested: str, features: Features) -> str:
    """``kernel`` or ``ebpf``; ``auto`` is the kernel's own where it has one.

    Where there is neither, the answer is ``kernel``: that is what the user should be told to load.
    """
    if requested != "auto":
        return requested
    return "ebpf" if features.ipip_ebpf and not features.ipip else "kernel"
