# mypy: disallow-untyped-defs=false, disallow-untyped-calls=false
"""The same without pytest."""

from testbed import Testbed

with Testbed.up("flannel", nodes=2) as testbed:
    pod_a, pod_b = testbed.pods["netexec-node1-1"], testbed.pods["netexec-node2-1"]
    with testbed.capture(pod_a.veth, testbed.nodes["node1"].uplink) as packets:
        pod_a.ping(pod_b)
    print(packets.table())
