"""Asking a Service's address from somewhere: who answered, and whom the endpoint saw."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from testbed.api.place import Place
from testbed.api.testbed import Testbed

SECONDS = 1.5
_CURL = {6: "no such host", 7: "refused", 28: "silence", 52: "closed", 56: "reset"}
_UDP = """\
exec 3<>/dev/udp/$1/$2 || exit 7
for word in hostname clientip; do
  printf %s $word >&3 || exit 7
  answer=$(timeout $3 dd bs=2048 count=1 <&3 2>/dev/null)
  code=$?
  [ -n "$answer" ] || { [ $code = 124 ] && exit 28; exit 7; }
  echo "$answer"
done
"""


@dataclass(frozen=True)
class Answer:
    """What came of one request."""

    outcome: str
    """``answered``, or why not: ``refused`` (at once), ``silence`` (until the end of patience)."""
    host: str = ""
    """Who answered."""
    client: str = ""
    """The address from which the request came, for who answered."""


def tcp(source: Place, address: object, port: int, *options: str) -> Answer:
    """Two HTTP requests in one connection: who are you, and who am I?"""
    url = f"http://{address}:{port}"
    words = ["curl", "-s", "-m", str(SECONDS), "-w", "\\n", *options]
    done = source.run(*words, f"{url}/hostname", f"{url}/clientip", check=False)
    return _answer(done.code, done.stdout)


def udp(source: Place, address: object, port: int) -> Answer:
    """The same questions as two datagrams from one port."""
    words = ["bash", "-c", _UDP, "udp", str(address), str(port), str(SECONDS)]
    done = source.run(*words, check=False)
    return _answer(done.code, done.stdout)


def _answer(code: int, printed: str) -> Answer:
    lines = printed.split()
    if code == 0 and len(lines) == 2:
        return Answer("answered", lines[0], lines[1].rpartition(":")[0])
    return Answer(_CURL.get(code, f"exit code {code}"))


class Addresses(Mapping[str, str]):
    """Address → whose it is: ``far`` (a pod), ``node1`` (an uplink), ``node1/cni0``, ``client``."""

    def __init__(self, testbed: Testbed) -> None:
        self._names: dict[str, str] = {}
        machines = {**testbed.nodes, **testbed.clients}
        for name, machine in machines.items():
            for link in json.loads(machine.run("ip", "-j", "-4", "address").stdout):
                device = link.get("ifname", "")
                for each in link.get("addr_info", ()):
                    if each["local"] != "127.0.0.1":
                        whose = name if device == "eth0" else f"{name}/{device}"
                        self._names.setdefault(each["local"], whose)
        for pod in testbed.pods.values():
            self._names[str(pod.ip)] = pod.name.removeprefix("default/")

    def __getitem__(self, address: str) -> str:
        return self._names[address]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def towards(node: Place, address: IPv4Address) -> str:
    """The address from which a node would send there: what MASQUERADE takes."""
    (route,) = json.loads(node.run("ip", "-j", "route", "get", str(address)).stdout)
    return str(route["prefsrc"])
