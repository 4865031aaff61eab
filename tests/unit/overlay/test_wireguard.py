"""WireGuard's keys, device and settings."""

from __future__ import annotations

from base64 import b64decode
from ipaddress import IPv4Address, IPv4Network

from testbed.overlay import wireguard, x25519
from testbed.overlay.wireguard import Peer


def test_keys_follow_from_the_names() -> None:
    """The same at every plan; of another node or testbed, others."""
    keys = [wireguard.private_key(testbed, node) for testbed in "ab" for node in ("node1", "node2")]
    assert len(set(keys)) == 4
    assert keys[0] == wireguard.private_key("a", "node1")


def test_both_ends_agree() -> None:
    """What a node has and what the others know of it belong together."""
    private = b64decode(wireguard.private_key("t", "node1"))
    public = b64decode(wireguard.public_key("t", "node1"))
    assert x25519.public_key(private) == public
    assert x25519.clamped(private) == private


def test_device_is_flannels() -> None:
    """``.0/32`` as its address and one route for the whole cluster."""
    parts = wireguard.device(
        "flannel-wg",
        own=IPv4Network("10.244.0.0/24"),
        network=IPv4Network("10.244.0.0/16"),
        mtu=1420,
    )
    assert [line for part in parts for line in part.create] == [
        "link add flannel-wg mtu 1420 type wireguard",
        "link set flannel-wg up",
        "address replace 10.244.0.0/32 dev flannel-wg",
        "route replace 10.244.0.0/16 dev flannel-wg scope link",
    ]


PEERS = (
    Peer(IPv4Address("172.18.0.3"), IPv4Network("10.244.1.0/24"), "one="),
    Peer(IPv4Address("172.18.0.4"), IPv4Network("10.244.2.0/24"), "two="),
)


def test_settings_read_like_showconf() -> None:
    """A peer has its node's pods only as allowed addresses."""
    assert wireguard.settings("own=", PEERS, port=51820) == (
        "[Interface]\n"
        "ListenPort = 51820\n"
        "PrivateKey = own=\n"
        "\n"
        "[Peer]\n"
        "PublicKey = one=\n"
        "AllowedIPs = 10.244.1.0/24\n"
        "Endpoint = 172.18.0.3:51820\n"
        "\n"
        "[Peer]\n"
        "PublicKey = two=\n"
        "AllowedIPs = 10.244.2.0/24\n"
        "Endpoint = 172.18.0.4:51820\n"
    )


def test_keepalive_is_off_unless_asked_for() -> None:
    """Every peer has it then."""
    text = wireguard.settings("own=", PEERS, port=51820, keepalive=25)
    assert text.count("PersistentKeepalive = 25\n") == 2
