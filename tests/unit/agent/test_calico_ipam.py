"""The calico-ipam CNI plugin on files of its own."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from testbed.agent import calico_ipam
from testbed.agent.calico_ipam import main

CONFIG: dict[str, Any] = {
    "name": "k8s-pod-network",
    "cniVersion": "0.3.1",
    "type": "calico",
    "nodename": "node1",
    "ipam": {"type": "calico-ipam"},
}
DATASTORE = {
    "node": "node1",
    "strict_affinity": False,
    "blocks": ["10.65.0.0/29"],
    "lent": ["10.65.0.7"],
    "borrowed": ["10.65.9.7"],
    "reserved": {"ipip-tunnel-addr-node1": "10.65.0.0"},
}
ARGS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-1;K8S_POD_UID=u"


class Plugin:
    """Runs the plugin in this process."""

    def __init__(
        self, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.datastore = place / "ipam.json"
        self.state = place / "ipam"
        self.lock = place / "run" / "ipam.lock"
        self.log = place / "log" / "cni.log"
        self._monkeypatch, self._capfd = monkeypatch, capfd
        monkeypatch.setattr(calico_ipam, "DATASTORE", str(self.datastore))
        monkeypatch.setattr(calico_ipam, "STATE", str(self.state))
        monkeypatch.setattr(sys, "argv", ["calico-ipam"])
        self.know(**DATASTORE)

    def know(self, **datastore: Any) -> None:
        """Write the datastore."""
        self.datastore.write_text(json.dumps(datastore))

    def run(
        self,
        command: str,
        container: str = "c0ffee",
        config: dict[str, Any] = CONFIG,
        **environment: str,
    ) -> dict[str, Any]:
        """One call; what it prints, empty when it prints nothing."""
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": "/netns",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": ARGS,
            **environment,
        }
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)
        full = {"ipam_lock_file": str(self.lock), "log_file_path": str(self.log), **config}
        stdin = io.TextIOWrapper(io.BytesIO(json.dumps(full).encode()))
        self._monkeypatch.setattr(sys, "stdin", stdin)
        status = main()
        out = self._capfd.readouterr().out
        answer: dict[str, Any] = json.loads(out) if out else {}
        assert status == (1 if "code" in answer else 0)
        return answer

    def add(self, container: str, requested: str = "", **config: Any) -> str:
        """ADD; the address."""
        arguments = f"{ARGS};IP={requested}" if requested else ARGS
        answer = self.run("ADD", container, {**CONFIG, **config}, CNI_ARGS=arguments)
        return str(answer["ips"][0]["address"])

    def block(self, name: str = "10-65-0-0-29") -> dict[str, Any]:
        """A block as it is kept."""
        block: dict[str, Any] = json.loads((self.state / f"{name}.json").read_text())
        return block


@pytest.fixture
def plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Plugin:
    """The plugin with a block of eight addresses."""
    return Plugin(tmp_path, monkeypatch, capfd)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("0.2.0", {"ip4": {"ip": "10.65.0.1/32"}}),
        ("0.3.1", {"ips": [{"version": "4", "address": "10.65.0.1/32"}]}),
        ("0.4.0", {"ips": [{"version": "4", "address": "10.65.0.1/32"}]}),
        ("1.0.0", {"ips": [{"address": "10.65.0.1/32"}]}),
    ],
)
def test_the_result_has_the_configurations_version(
    plugin: Plugin, version: str, expected: dict[str, Any]
) -> None:
    """Without interfaces, as it is IPAM's."""
    answer = plugin.run("ADD", config={**CONFIG, "cniVersion": version})
    assert answer == {"cniVersion": version, **expected}


def test_what_is_kept(plugin: Plugin) -> None:
    """An IPAMBlock with the pod's handle and attributes, behind the node's own address."""
    plugin.run("ADD")
    block = plugin.block()
    attributes = block.pop("attributes")
    assert block == {
        "cidr": "10.65.0.0/29",
        "affinity": "host:node1",
        "strictAffinity": False,
        "allocations": [0, 1, None, None, None, None, None, None],
        "unallocated": [2, 3, 4, 5, 6, 7],
        "deleted": False,
    }
    assert [each["handle_id"] for each in attributes] == [
        "ipip-tunnel-addr-node1",
        "k8s-pod-network.c0ffee",
    ]
    owner = attributes[1]["secondary"]
    assert list(owner) == ["namespace", "node", "pod", "timestamp"]
    assert list(owner.values())[:3] == ["default", "node1", "web-1"]
    assert re.fullmatch(r"[\d-]{10} [\d:]{8}\.\d{9} \+0000 UTC", owner["timestamp"])
    assert stat.S_IMODE((plugin.state / "10-65-0-0-29.json").stat().st_mode) & 0o077 == 0o044
    assert [path.name for path in plugin.state.iterdir()] == ["10-65-0-0-29.json"]


def test_delete_releases_and_may_be_repeated(plugin: Plugin) -> None:
    """By handle, without the namespace; the address goes to the end of the queue."""
    plugin.run("ADD")
    assert plugin.run("DEL", CNI_NETNS="") == {}
    assert plugin.block()["unallocated"] == [2, 3, 4, 5, 6, 7, 1]
    kept = plugin.block()
    assert plugin.run("DEL", CNI_NETNS="") == {}
    assert plugin.block() == kept
    assert plugin.run("DEL", "never-added") == {}


def test_borrowed_addresses_are_kept_in_their_own_file(plugin: Plugin) -> None:
    """Used when the block is full but for what is lent; released like others."""
    given = [plugin.add(f"c{number}") for number in range(7)]
    assert given == [*(f"10.65.0.{number}/32" for number in range(1, 7)), "10.65.9.7/32"]
    path = plugin.state / "borrowed.json"
    kept = json.loads(path.read_text())
    assert list(kept) == ["10.65.9.7"]
    assert kept["10.65.9.7"]["handle_id"] == "k8s-pod-network.c6"
    plugin.run("DEL", "c6")
    assert json.loads(path.read_text()) == {}
    assert plugin.add("c7") == "10.65.9.7/32"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "No IPs available in pools: [10.65.0.0/30]"),
        ({"pools": ["10.65.0.0/16", "10.66.0.0/16"]},
         "No IPs available in pools: [10.65.0.0/16 10.66.0.0/16]"),
        ({"strict_affinity": True}, "No more free affine blocks and strict affinity enabled"),
    ],
)  # fmt: skip
def test_no_address_left(plugin: Plugin, changes: dict[str, Any], reason: str) -> None:
    """Upstream's words."""
    plugin.know(node="node1", blocks=["10.65.0.0/30"], **changes)
    for number in range(4):
        plugin.add(f"c{number}")
    assert plugin.run("ADD", "c4") == {
        "code": 999,
        "msg": "failed to request IPv4 addresses: Assigned 0 out of 1 requested IPv4 addresses; "
        + reason,
    }


def test_a_former_address_is_given_again(plugin: Plugin) -> None:
    """What the agent asks for after a node's restart; another one when somebody has it."""
    assert plugin.add("c0") == "10.65.0.1/32"
    assert plugin.add("c1") == "10.65.0.2/32"
    plugin.run("DEL", "c1")
    assert plugin.add("c2", "10.65.0.2") == "10.65.0.2/32"
    assert plugin.add("c3", "10.65.0.2") == "10.65.0.3/32"
    assert plugin.add("c4", "10.65.0.7") == "10.65.0.4/32"
    assert plugin.add("c5", "10.65.0.0") == "10.65.0.5/32"
    assert plugin.add("c6", "10.65.9.7") == "10.65.9.7/32"


def test_a_block_that_is_gone_from_the_datastore(plugin: Plugin) -> None:
    """Its file goes with its last address."""
    plugin.add("c0")
    plugin.know(node="node1", blocks=["10.65.1.0/29"])
    assert plugin.add("c1") == "10.65.1.0/32"
    assert plugin.block()["affinity"] is None
    plugin.run("DEL", "c0")
    assert [path.name for path in plugin.state.iterdir()] == ["10-65-1-0-29.json"]


def test_check_asks_for_the_workloads_address(plugin: Plugin) -> None:
    """Nothing is said when it has one."""
    config = {**CONFIG, "cniVersion": "0.4.0"}
    plugin.add("c0ffee")
    assert plugin.run("CHECK", config=config) == {}
    plugin.run("DEL")
    assert plugin.run("CHECK", config=config)["msg"] == (
        "no address assigned to handle k8s-pod-network.c0ffee"
    )


def test_a_missing_datastore(plugin: Plugin) -> None:
    """ADD fails; DEL, which must not, releases all the same."""
    plugin.run("ADD")
    plugin.datastore.unlink()
    assert plugin.run("ADD", "c1") == {
        "code": 999,
        "msg": f"error getting IPAM blocks: open {plugin.datastore}: no such file or directory",
    }
    assert plugin.run("DEL") == {}
    assert plugin.block()["allocations"] == [0, *[None] * 7]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"blocks": ["x"]}', '{"blocks": 1}', '{"reserved": 1}']
)
def test_a_malformed_datastore(plugin: Plugin, text: str) -> None:
    """Is an error of code 6."""
    plugin.datastore.write_text(text)
    assert plugin.run("ADD")["code"] == 6


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_malformed_block(plugin: Plugin, text: str) -> None:
    """The same: nobody guesses which addresses are in use."""
    plugin.state.mkdir()
    (plugin.state / "10-65-0-0-29.json").write_text(text)
    assert plugin.run("ADD")["code"] == 6


@pytest.mark.parametrize(
    ("ipam", "msg"),
    [
        ({"ipv4_pools": ["default-ipv4-ippool"]}, "unsupported field ipam.ipv4_pools"),
        ({"assign_ipv6": "true"}, "unsupported value of ipam.assign_ipv6: true"),
        ({"assign_ipv4": "false"}, "unsupported value of ipam.assign_ipv4: false"),
    ],
)
def test_what_is_not_supported_is_not_ignored(
    plugin: Plugin, ipam: dict[str, Any], msg: str
) -> None:
    """Code 2 of the specification."""
    config = {**CONFIG, "ipam": {"type": "calico-ipam", **ipam}}
    assert plugin.run("ADD", config=config) == {"code": 2, "msg": msg}
    assert not plugin.state.exists()


@pytest.mark.parametrize(
    ("arguments", "msg"),
    [
        ("K8S_POD_NAME=web", 'ARGS: unknown args ["K8S_POD_NAME=web"]'),
        ("IgnoreUnknown=0;A=b", 'ARGS: unknown args ["A=b"]'),
        ("IgnoreUnknown=1;A", 'ARGS: invalid pair "A"'),
        ("A=b=c", 'ARGS: invalid pair "A=b=c"'),
    ],
)
def test_arguments_that_nobody_knows(plugin: Plugin, arguments: str, msg: str) -> None:
    """As with all plugins of the CNI library."""
    assert plugin.run("ADD", CNI_ARGS=arguments) == {"code": 999, "msg": msg}


def test_without_kubernetes(plugin: Plugin) -> None:
    """The container alone is the workload."""
    plugin.run("ADD", CNI_ARGS="")
    owner = plugin.block()["attributes"][1]["secondary"]
    assert list(owner) == ["node", "timestamp"]
    assert 'Workload="node1-cni-c0ffee-eth0"' in plugin.log.read_text()


def test_the_log(plugin: Plugin) -> None:
    """A line a command, in Calico's format; only errors when that is asked for."""
    plugin.run("ADD")
    plugin.run("DEL")
    plugin.run("DEL")
    plugin.run("ADD", config={**CONFIG, "log_level": "error"})
    assigned, released, warning = plugin.log.read_text().splitlines()
    fields = (
        'ContainerID="c0ffee" HandleID="k8s-pod-network.c0ffee" Workload="node1-k8s-web--1-eth0"'
    )
    assert re.fullmatch(
        r"[\d-]{10} [\d:]{8}\.\d{3} \[INFO\]\[\d+\] ipam/calico_ipam\.py \d+: Calico CNI IPAM "
        rf"assigned addresses IPv4=\[10\.65\.0\.1/32\] IPv6=\[\] {re.escape(fields)}",
        assigned,
    )
    assert released.endswith(f": Released address using handleID: 10.65.0.1 {fields}")
    assert "[WARNING]" in warning
    assert warning.endswith(f": Asked to release address but it doesn't exist. Ignoring {fields}")


def test_versions(plugin: Plugin, capfd: pytest.CaptureFixture[str]) -> None:
    """Up to 1.0.0, as upstream; ``-v`` prints Calico's."""
    answer = plugin.run("VERSION")
    assert answer["supportedVersions"] == ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"]
    assert plugin.run("ADD", config={**CONFIG, "cniVersion": "1.1.0"})["code"] == 1
    sys.argv.append("-v")
    assert main() == 0
    assert re.fullmatch(r"v3\.32\.\d+-testbed\n", capfd.readouterr().out)


def _attach(number: int, lock: str) -> None:
    """ADD, DEL and ADD in another process."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - until the process ends
    for command in ("ADD", "DEL", "ADD"):
        os.environ.update(CNI_COMMAND=command, CNI_CONTAINERID=f"c{number}")
        config = json.dumps({**CONFIG, "ipam_lock_file": lock}).encode()
        sys.stdin = io.TextIOWrapper(io.BytesIO(config))
        assert main() == 0


def test_many_at_once(plugin: Plugin) -> None:
    """No address is given twice: the lock covers reading and writing."""
    plugin.know(node="node1", blocks=["10.65.0.0/27"])
    plugin.run("ADD", "first")
    workers = [
        multiprocessing.get_context("fork").Process(target=_attach, args=(number, str(plugin.lock)))
        for number in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0] * 8
    block = plugin.block("10-65-0-0-27")
    handles = [each["handle_id"] for each in block["attributes"]]
    names = ["first", *(f"c{number}" for number in range(8))]
    assert sorted(handles) == sorted(f"k8s-pod-network.{name}" for name in names)
    assert len(block["unallocated"]) == 32 - 9
