# mypy: disallow-untyped-defs=false, disallow-untyped-calls=false
# ruff: noqa: D103 - as tests are written outside of this repository
"""Looking at nodes and pods from inside."""


def test_the_application_listens(pods):
    host = pods["netexec-node1-1"].host
    assert host.socket("tcp://:::8080").is_listening
    assert str(pods["netexec-node1-1"].ip) in host.interface("eth0").addresses
    assert host.file("/etc/resolv.conf").exists


def test_the_overlay_s_device(nodes):
    node1 = nodes["node1"]
    assert node1.host.interface("flannel.1").exists
    assert "vxlan id 1" in node1.run("ip", "-d", "link", "show", "flannel.1").stdout


def test_a_pod_and_its_veth(nodes, pods):
    pod = pods["netexec-node1-1"]
    assert pod.node is nodes["node1"]
    assert str(pod.eth0) == "default/netexec-node1-1/eth0"
    assert nodes["node1"].host.interface(pod.veth.device).exists
