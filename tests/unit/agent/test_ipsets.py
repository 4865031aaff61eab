"""ipset fragments: what is swapped, what is left alone."""

from __future__ import annotations

from testbed.agent.ipsets import difference, parse

OPTIONS = "hash:net family inet hashsize 1024 maxelem 1048576"
SAVED = f"""\
create cali40a {OPTIONS} bucketsize 12 initval 0x1e2f3a4b
add cali40a 10.0.0.0/16
add cali40a 10.1.0.0/16
create other hash:ip family inet hashsize 64 maxelem 65536
"""


def wanted(*members: str) -> str:
    """A fragment with one set."""
    return f"create cali40a {OPTIONS}\n" + "".join(f"add cali40a {each}\n" for each in members)


def test_what_varies_by_version_is_no_difference() -> None:
    """bucketsize and initval, and the order of members."""
    fragment = parse(wanted("10.1.0.0/16", "10.0.0.0/16"))
    assert difference(fragment, parse(SAVED)) == []


def test_a_missing_set_is_made() -> None:
    """With its members, sorted."""
    assert difference(parse(wanted("10.1.0.0/16", "10.0.0.0/16")), {}) == [
        f"create cali40a {OPTIONS}",
        "add cali40a 10.0.0.0/16",
        "add cali40a 10.1.0.0/16",
    ]


def test_a_set_that_differs_is_swapped() -> None:
    """Rules that match it never see a half-filled one."""
    assert difference(parse(wanted("10.2.0.0/16")), parse(SAVED)) == [
        f"create testbed-spare {OPTIONS}",
        "add testbed-spare 10.2.0.0/16",
        "swap testbed-spare cali40a",
        "destroy testbed-spare",
    ]


def test_what_a_failed_restore_left_is_cleared() -> None:
    """Or no set could ever be swapped again."""
    have = parse(f"{SAVED}create testbed-spare {OPTIONS}\n")
    assert difference(parse(wanted("10.2.0.0/16")), have)[0] == "destroy testbed-spare"
    assert difference(parse(wanted("10.0.0.0/16", "10.1.0.0/16")), have) == []
