"""Reading a loaded program's per-CPU map by the bpf system call: the image has no bpftool."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import AgentError

__all__ = ["possible_cpus", "read_array"]

_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_MAP_LOOKUP_ELEM, _PROG_GET_FD_BY_ID, _MAP_GET_FD_BY_ID, _OBJ_GET_INFO_BY_FD = 1, 13, 14, 15
_PROG_INFO, _MAP_INFO = 208, 88
"""Bytes that the answers get; older kernels fill in fewer."""
_MOST_MAPS = 64

_libc = ctypes.CDLL(None, use_errno=True)


def read_array(program: int, name: str) -> list[int]:
    """The 64-bit entries of a program's ``BPF_MAP_TYPE_PERCPU_ARRAY``, each summed over all CPUs.

    Args:
        program: its ID, as ``tc filter show`` prints it.
        name: the map's name.

    Raises:
        AgentError: the program is gone, has no such map, or the kernel refused.
    """
    with _opened(_PROG_GET_FD_BY_ID, program) as descriptor:
        maps = _map_ids(descriptor)
    for each in maps:
        with _opened(_MAP_GET_FD_BY_ID, each) as descriptor:
            entries, found = struct.unpack_from("=16xI4x16s", _info(descriptor, bytes(_MAP_INFO)))
            if found.rstrip(b"\0").decode() == name:
                return [_lookup(descriptor, index) for index in range(entries)]
    raise AgentError("the program has no such map", f"BPF program {program}", name)


def possible_cpus(listing: str) -> int:
    """How many values a per-CPU map has: the CPUs in a listing such as ``0-3,8``."""
    ranges = [each.partition("-") for each in listing.strip().split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)


def _call(command: int, attributes: bytes) -> tuple[int, bytes]:
    """The result, and the attributes as the kernel left them."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = _libc.syscall(_SYSCALL[platform.machine()], command, buffer, len(attributes))
    if result < 0:
        raise AgentError("the kernel refused", f"bpf({command})", os.strerror(ctypes.get_errno()))
    return result, buffer.raw


@contextmanager
def _opened(command: int, identifier: int) -> Iterator[int]:
    descriptor, _ = _call(command, struct.pack("=III", identifier, 0, 0))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _info(descriptor: int, request: bytes) -> bytes:
    """``bpf_prog_info`` or ``bpf_map_info``; pointers and lengths in the request are obeyed."""
    buffer = ctypes.create_string_buffer(request, len(request))
    address = ctypes.addressof(buffer)
    _call(_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", descriptor, len(request), address))
    return buffer.raw


def _map_ids(program: int) -> list[int]:
    count_at, count_and_pointer = 52, "=52xIQ"
    ids = (ctypes.c_uint32 * _MOST_MAPS)()
    request = struct.pack(count_and_pointer, _MOST_MAPS, ctypes.addressof(ids))
    [count] = struct.unpack_from("=I", _info(program, request.ljust(_PROG_INFO, b"\0")), count_at)
    return list(ids[:count])


def _lookup(map_descriptor: int, index: int) -> int:
    cpus = possible_cpus(Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii"))
    key, values = ctypes.c_uint32(index), (ctypes.c_uint64 * cpus)()
    where = ctypes.addressof(key), ctypes.addressof(values)
    _call(_MAP_LOOKUP_ELEM, struct.pack("=I4xQQQ", map_descriptor, *where, 0))
    return sum(values)
