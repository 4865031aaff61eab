"""Kubernetes quantities as bandwidths."""

from __future__ import annotations

import pytest

from testbed.topology.quantity import bits_per_second


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("10M", 10_000_000),
        ("1Gi", 1_073_741_824),
        ("500k", 500_000),
        ("1k", 1_000),
        ("1P", 10**15),
        ("1.5M", 1_500_000),
        (".5M", 500_000),
        ("1e6", 1_000_000),
        ("12E3", 12_000),
        ("2000000m", 2_000),
        ("1000.2", 1_001),
        ("+1Mi", 1_048_576),
    ],
)
def test_values(text: str, bits: int) -> None:
    """Decimal, binary and exponent forms; fractions round up."""
    assert bits_per_second(text) == bits


@pytest.mark.parametrize(
    "text",
    ["", "M", "10MB", "10 M", "1K", "10Mbit", "1e", "0x10", "--1", "1e999", "\u0661k"],
)
def test_no_quantities(text: str) -> None:
    """Other spellings are refused, saying what to write."""
    with pytest.raises(ValueError, match="is not a quantity; write bits per second"):
        bits_per_second(text)


@pytest.mark.parametrize("text", ["999", "0", "-1M", "2P", "1E", "1e99", "1m"])
def test_bounds(text: str) -> None:
    """Kubernetes takes 1k to 1P."""
    with pytest.raises(ValueError, match="is out of range"):
        bits_per_second(text)
