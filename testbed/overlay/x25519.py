"""X25519, the function by which WireGuard's public keys follow from private ones (RFC 7748).

Written for planning, where a whole cluster's public keys must be known before a node exists. Not
constant time: nothing here may be given a key that protects something.
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["BASE_POINT", "clamped", "public_key", "x25519"]

BASE_POINT = (9).to_bytes(32, "little")
_PRIME = 2**255 - 19
_A24 = 121665
"""(A - 2) / 4 of the curve v² = u³ + 486662 u² + u."""


def clamped(scalar: bytes) -> bytes:
    """A multiple of 8 with the highest bit at 2²⁵⁴: how private keys are written and compared."""
    octets = bytearray(scalar)
    octets[0] &= 0xF8
    octets[31] = octets[31] & 0x7F | 0x40
    return bytes(octets)


@lru_cache(maxsize=1024)
def public_key(private: bytes) -> bytes:
    """The public key of a private one; both are 32 bytes."""
    return x25519(private, BASE_POINT)


def x25519(scalar: bytes, point: bytes) -> bytes:
    """Multiply the point with u-coordinate ``point`` by ``scalar``, both 32 bytes, little-endian.

    The Montgomery ladder of RFC 7748, section 5, in its notation.
    """
    k = int.from_bytes(clamped(scalar), "little")
    x_1 = int.from_bytes(point, "little") % 2**255
    x_2, z_2, x_3, z_3 = 1, 0, x_1, 1
    swap = 0
    for t in reversed(range(255)):
        k_t = k >> t & 1
        if swap ^ k_t:
            x_2, x_3, z_2, z_3 = x_3, x_2, z_3, z_2
        swap = k_t
        a, b = x_2 + z_2, x_2 - z_2
        aa, bb = a * a % _PRIME, b * b % _PRIME
        e = aa - bb
        da, cb = (x_3 - z_3) * a % _PRIME, (x_3 + z_3) * b % _PRIME
        x_3 = (da + cb) ** 2 % _PRIME
        z_3 = x_1 * (da - cb) ** 2 % _PRIME
        x_2 = aa * bb % _PRIME
        z_2 = e * (aa + _A24 * e) % _PRIME
    if swap:
        x_2, z_2 = x_3, z_3
    return (x_2 * pow(z_2, _PRIME - 2, _PRIME) % _PRIME).to_bytes(32, "little")
