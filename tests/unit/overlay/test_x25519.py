"""X25519 against the test vectors of RFC 7748, sections 5.2 and 6.1."""

from __future__ import annotations

import pytest

from testbed.overlay.x25519 import BASE_POINT, clamped, public_key, x25519


@pytest.mark.parametrize(
    ("scalar", "point", "result"),
    [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ],
)
def test_single_multiplications(scalar: str, point: str, result: str) -> None:
    """The second point has its highest bit set, which is ignored."""
    assert x25519(bytes.fromhex(scalar), bytes.fromhex(point)).hex() == result


@pytest.mark.parametrize(
    ("times", "result"),
    [
        (1, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"),
        (1000, "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"),
    ],
)
def test_iterated(times: int, result: str) -> None:
    """The result becomes the scalar, and the scalar the point."""
    scalar = point = BASE_POINT
    for _ in range(times):
        scalar, point = x25519(scalar, point), scalar
    assert scalar.hex() == result


ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
BOB = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")


def test_public_keys() -> None:
    """Section 6.1: those of Alice's and Bob's private keys."""
    assert public_key(ALICE).hex() == (
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    )
    assert public_key(BOB).hex() == (
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    )


def test_both_ends_compute_the_same_secret() -> None:
    """Section 6.1: each from the own private key and the other's public one."""
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert x25519(ALICE, public_key(BOB)).hex() == shared
    assert x25519(BOB, public_key(ALICE)).hex() == shared


def test_clamped_keys_are_what_was_clamped() -> None:
    """WireGuard keeps the clamped key: what it shows must be what was set."""
    every = clamped(bytes(range(200, 232)))
    assert clamped(every) == every
    assert every[0] & 7 == 0
    assert every[31] >> 6 == 1
    assert public_key(every) == public_key(bytes(range(200, 232)))
