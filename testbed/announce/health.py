"""What load balancers ask a node's kube-proxy: health check node ports, and ``/healthz``. Pure.

``healthCheckNodePort`` says how many endpoints of a Service are on the node, with 503 for none, so
that a load balancer sends nothing to nodes that would drop it. Port 10256 says that kube-proxy
itself works. nginx serves both from its configuration; the answers are kube-proxy's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from testbed.dataplane.spec import File, Process
from testbed.topology.model import Node
from testbed.topology.portals import Portal

__all__ = ["CONFIGURATION", "HEALTHZ_PORT", "plan"]

CONFIGURATION = "/etc/testbed/announce/health.conf"
HEALTHZ_PORT = 10256


def plan(
    node: Node, portals: Mapping[str, tuple[Portal, ...]]
) -> tuple[tuple[File, ...], tuple[Process, ...]]:
    """nginx with a server for each port."""
    servers = [
        _server(key, each[0].health_check_node_port, _local(node, each))
        for key, each in portals.items()
        if each[0].health_check_node_port
    ]
    text = _MAIN + "".join([*servers, _HEALTHZ]) + "}\n"
    process = Process(
        "health",
        ("nginx", "-e", "stderr", "-c", CONFIGURATION),
        reload=("nginx", "-e", "stderr", "-c", CONFIGURATION, "-s", "reload"),
        files=(CONFIGURATION,),
    )
    return (File(CONFIGURATION, text),), (process,)


def _local(node: Node, portals: tuple[Portal, ...]) -> int:
    """How many endpoints are here; one that terminates does not count."""
    targets = (target for portal in portals for target in portal.targets)
    return len({each.address for each in targets if each.node == node.name and each.ready})


_MAIN = """\
daemon off;
worker_processes 1;
pid /run/health.pid;
events {
  worker_connections 64;
}
http {
  access_log off;
  default_type application/json;
"""
_HEALTHZ = f"""\
  server {{
    listen {HEALTHZ_PORT};
    add_header X-Content-Type-Options nosniff always;
    location ~ ^/(healthz|livez)$ {{
      return 200 '{{"lastUpdated": "$time_iso8601","currentTime": "$time_iso8601", \
"nodeEligible": true}}';
    }}
    location / {{
      return 404;
    }}
  }}
"""


def _server(service: str, port: int | None, endpoints: int) -> str:
    namespace, _, name = service.partition("/")
    answer = {
        "service": {"namespace": namespace, "name": name},
        "localEndpoints": endpoints,
        "serviceProxyHealthy": True,
    }
    return f"""\
  # {service}
  server {{
    listen {port};
    add_header X-Content-Type-Options nosniff always;
    add_header X-Load-Balancing-Endpoint-Weight {endpoints} always;
    location / {{
      return {200 if endpoints else 503} '{json.dumps(answer)}';
    }}
  }}
"""
