"""Comparing WireGuard settings and applying those that differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.agent.errors import CommandError
from testbed.agent.wireguard import apply, same

WANTED = """\
[Interface]
ListenPort = 51820
PrivateKey = YLNog517fL5RcRgvF/inz83zBHolnLB3APgPaSzJDXg=

[Peer]
PublicKey = GWda61T40mvdPCVDHVm3gOyh0FItMhuwdT5KlW/61Ek=
AllowedIPs = 10.244.1.0/24
Endpoint = 172.18.0.3:51820

[Peer]
PublicKey = 2lVrdvgRQs1awM8cyHMX5wxOpb/DV1OXjvoQYeHOkx0=
AllowedIPs = 10.244.2.0/24, 10.244.3.0/24
Endpoint = 172.18.0.4:51820
PersistentKeepalive = 25
"""


def test_order_says_nothing() -> None:
    """Of keys, of peers, and of a peer's allowed addresses."""
    interface, first, second = WANTED.split("\n\n")
    lines = interface.splitlines()
    swapped = "\n".join([lines[0], lines[2], lines[1]])
    second = second.replace("10.244.2.0/24, 10.244.3.0/24", "10.244.3.0/24,10.244.2.0/24")
    assert same("\n\n".join([swapped, second, first]), WANTED)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ListenPort = 51820", "ListenPort = 51821"),
        ("ListenPort = 51820", "ListenPort = 51820\nFwMark = 0x1"),
        ("YLNog517", "YLNog518"),
        ("AllowedIPs = 10.244.1.0/24", "AllowedIPs = 10.244.1.0/24, 10.244.9.0/24"),
        ("172.18.0.3:51820", "172.18.0.9:51820"),
        ("PersistentKeepalive = 25\n", ""),
        ("[Peer]\nPublicKey = GWda61T4", "[Peer]\nPublicKey = GWda61T5"),
    ],
)
def test_any_other_difference_is_one(old: str, new: str) -> None:
    """Also what nobody asked for, such as a mark."""
    assert old in WANTED
    assert not same(WANTED.replace(old, new), WANTED)


def test_a_new_device_has_nothing() -> None:
    """``wg showconf`` prints a section and nothing in it."""
    assert not same("[Interface]\n", WANTED)
    assert same("[Interface]\n\n", "[Interface]\n")


FAKE = """\
#!/bin/sh
# Keeps each device's settings in a file; devices are the files that exist.
cd $(dirname "$0")
if ! [ -e "$2.conf" ]; then
  echo "Unable to access interface: No such device" >&2
  exit 1
fi
echo "$@" >> calls
case $1 in
  showconf) cat "$2.conf" ;;
  syncconf) cat "$3" > "$2.conf" ;;
esac
"""


@pytest.fixture
def wg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a stand-in for ``wg`` and a new device."""
    tool = tmp_path / "wg"
    tool.write_text(FAKE)
    tool.chmod(0o755)
    (tmp_path / "flannel-wg.conf").write_text("[Interface]\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_a_second_sync_changes_nothing(wg: Path) -> None:
    """Settings are read back before they are written; the changes do not show the key."""
    wanted = [{"name": "flannel-wg", "content": WANTED}]
    assert apply(wanted) == ["wg syncconf flannel-wg"]
    assert (wg / "flannel-wg.conf").read_text() == WANTED
    assert apply(wanted) == []
    assert (wg / "calls").read_text().splitlines() == [
        "showconf flannel-wg",
        "syncconf flannel-wg /dev/stdin",
        "showconf flannel-wg",
    ]


@pytest.mark.usefixtures("wg")
def test_a_missing_device_is_an_error() -> None:
    """With the tool's own words."""
    with pytest.raises(CommandError, match=r"wg showconf nonesuch.*No such device"):
        apply([{"name": "nonesuch", "content": WANTED}])


def test_nothing_wanted_runs_nothing(wg: Path) -> None:
    """Nodes without WireGuard do not need the tool."""
    assert apply([]) == []
    assert not (wg / "calls").exists()
