"""What is asked of the kernel when a program's counters are read."""

from __future__ import annotations

import pytest

from testbed.agent import bpf
from testbed.agent.errors import AgentError


@pytest.mark.parametrize(
    ("listing", "cpus"), [("0\n", 1), ("0-1\n", 2), ("0-3,8", 5), ("0-3,8-9", 6)]
)
def test_values_per_entry(listing: str, cpus: int) -> None:
    """One for every CPU that the machine could have, not only for those that are on."""
    assert bpf.possible_cpus(listing) == cpus


def test_a_program_that_is_gone_is_said() -> None:
    """The kernel's words: there is none, or a user without rights may not know."""
    with pytest.raises(AgentError, match=r"bpf\(13\): the kernel refused"):
        bpf.read_array(0x7FFFFFFF, "counters")
