"""``$(NAME)`` as Kubernetes expands it (its own table of cases, in short)."""

from __future__ import annotations

import pytest

from testbed.topology.expansion import expand


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "a"),
        ("x$(A)$(B)y", "xay"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$a"),
        ("$$$$(A)", "$$(A)"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
        ("$()", "$()"),
        ("$($(A))", "$($(A))"),
        ("`id` ; $(rm -rf /)", "`id` ; $(rm -rf /)"),
    ],
)
def test_expand(text: str, expanded: str) -> None:
    """Known references are replaced once; everything else stays, and nothing is executed."""
    assert expand(text, {"A": "a", "B": ""}) == expanded
