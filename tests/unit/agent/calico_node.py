"""A Calico node that is only a network namespace, for tests of the plugins' executables."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

__all__ = ["CONFIG", "ROOT", "Namespaces", "Node"]

ROOT = Path(__file__).parents[3]
CONFIG: dict[str, Any] = {
    "name": "k8s-pod-network",
    "cniVersion": "0.3.1",
    "type": "calico",
    "nodename": "node1",
    "mtu": 1480,
    "ipam": {"type": "calico-ipam"},
    "policy": {"type": "k8s"},
}
CONSTANTS = {
    "NODENAME": "nodename",
    "MTU": "mtu",
    "ENDPOINTS": "endpoints",
    "DATASTORE": "ipam.json",
    "STATE": "ipam",
    "LOCK": "ipam.lock",
}
"""What the plugins' modules call their files → the file below a test's directory."""

EXECUTABLE = """\
#!{python} -IS
import sys
sys.path.insert(0, {path!r})
from agent import calico_cni, calico_ipam
for name, file in {constants!r}.items():
    for module in (calico_cni, calico_ipam):
        setattr(module, name, {place!r} + "/" + file)
sys.exit({module}.main())
"""


class Namespaces:
    """Network namespaces, each held by a process; as another user in a user namespace, too."""

    def __init__(self) -> None:
        self._held: list[subprocess.Popen[str]] = []
        self._root = os.geteuid() == 0

    def enter(self, pid: int, *argv: str) -> list[str]:
        """The arguments that run a command in a namespace."""
        user = [] if self._root else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={pid}", *user, "--net", *argv]

    def new(self, inside: int | None = None) -> int:
        """Make a namespace; the process that holds it until :meth:`close`."""
        hold = ["sh", "-c", "echo ready; exec cat"]
        if inside is not None:
            argv = self.enter(inside, "unshare", "--net", *hold)
        else:
            argv = ["unshare", *([] if self._root else ["--map-root-user"]), "--net", *hold]
        held = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._held.append(held)
        assert held.stdout is not None
        if held.stdout.readline() != "ready\n":
            pytest.skip("network namespaces cannot be made here (unshare --net)")
        return held.pid

    def close(self, pid: int | None = None) -> None:
        """End one process, or all of them."""
        for held in [each for each in self._held if pid in (None, each.pid)]:
            held.communicate(timeout=10)
            self._held.remove(held)


class Node:
    """A node's namespace with an uplink, and executables with files of their own."""

    def __init__(self, place: Path, namespaces: Namespaces) -> None:
        self.place = place
        self.namespaces = namespaces
        self.pid = namespaces.new()
        self.bin = place / "bin"
        self.bin.mkdir()
        self.log = place / "cni.log"
        for name, module in (("calico", "calico_cni"), ("calico-ipam", "calico_ipam")):
            text = EXECUTABLE.format(
                python=sys.executable,
                path=str(ROOT / "testbed"),
                constants=CONSTANTS,
                place=str(place),
                module=module,
            )
            self.executable(name, text)
        (place / "nodename").write_text("node1")
        datastore = {
            "node": "node1",
            "blocks": ["10.65.0.0/26"],
            "reserved": {"ipip-tunnel-addr-node1": "10.65.0.0"},
        }
        (place / "ipam.json").write_text(json.dumps(datastore))
        # Proxy ARP answers for 169.254.1.1 only if there is a route to it by another interface.
        self.shell(
            "ip link add up0 type veth peer name up1 && ip link set up1 up && ip link set up0 up &&"
            "ip address add 172.31.255.2/24 dev up0 && ip route add default via 172.31.255.1 &&"
            "echo 1 >/proc/sys/net/ipv4/ip_forward"
        )

    def executable(self, name: str, text: str) -> None:
        """Put a plugin into the directory of plugins."""
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def pod(self) -> int:
        """A pod's namespace."""
        return self.namespaces.new(self.pid)

    def shell(self, script: str, pid: int | None = None) -> str:
        """The output of a script on the node or in a pod; it must succeed."""
        argv = self.namespaces.enter(pid or self.pid, "sh", "-c", script)
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def lines(self, script: str, pid: int | None = None) -> list[str]:
        """The same, in lines without the blanks that iproute2 ends them with."""
        return [line.rstrip() for line in self.shell(script, pid).splitlines()]

    def run(
        self, command: str, pod: int | str, name: str = "web-1", container: str = "c1", **more: Any
    ) -> dict[str, Any]:
        """One call of the plugin; what it prints, empty when it prints nothing."""
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/proc/{pod}/ns/net" if isinstance(pod, int) else pod,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.bin),
            "CNI_ARGS": f"K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_UID=u",
        }
        config = {**CONFIG, "log_file_path": str(self.log), **more}
        argv = self.namespaces.enter(self.pid, str(self.bin / "calico"))
        done = subprocess.run(
            argv,
            input=json.dumps(config),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.stderr == ""
        answer: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
        assert done.returncode == (1 if "code" in answer else 0)
        return answer

    def unallocated(self) -> list[int]:
        """The block's free ordinals, in order."""
        block = json.loads((self.place / "ipam" / "10-65-0-0-26.json").read_text())
        return list(block["unallocated"])

    def devices(self) -> list[str]:
        """Names of the node's ends of veths."""
        return re.findall(r"cali\w+", self.shell("ip -brief link"))
