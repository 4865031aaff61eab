"""Throw-away."""
import json, subprocess, sys
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from testbed.node import engine, image
from testbed.node.progress import silent
from testbed.dataplane.vantage import Vantage
from testbed.proxy import ipvs
from testbed.topology.portals import Portal, Target

IP, NET = IPv4Address, IPv4Network
NODE = Vantage("node1", IP("172.18.0.2"), NET("10.244.0.0/16"), NET("10.96.0.0/16"))
A, B = Target(IP("10.244.0.5"), 80, "node1"), Target(IP("10.244.1.7"), 80, "node2")
P = Portal("ns1/svc1", "p80", "tcp", IP("10.96.0.41"), 80, (A, B))
X = replace(P, service="ns1/x", cluster_ip=IP("10.96.0.42"), node_port=30080, external_ips=(IP("192.0.2.1"),),
            load_balancer_ip=IP("198.51.100.1"), affinity_seconds=10800)
L = replace(X, service="ns1/l", cluster_ip=IP("10.96.0.43"), node_port=30081, external_ips=(IP("192.0.2.2"),),
            load_balancer_ip=IP("198.51.100.2"), external_local=True, health_check_node_port=32000,
            source_ranges=(NET("203.0.113.0/24"), NET("203.0.112.7/32"), NET("0.0.0.0/0")), affinity_seconds=None)
F = replace(L, service="ns1/f", cluster_ip=IP("10.96.0.44"), node_port=30082, external_ips=(IP("192.0.2.3"),),
            load_balancer_ip=IP("198.51.100.3"), source_ranges=(NET("203.0.113.0/24"),), health_check_node_port=32001)
U = replace(F, service="ns1/u", protocol="udp", cluster_ip=IP("10.96.0.45"), targets=(), external_ips=(), load_balancer_ip=IP("198.51.100.4"), health_check_node_port=None)
S = replace(U, service="ns1/s", protocol="sctp", targets=(B,), cluster_ip=IP("10.96.0.46"), load_balancer_ip=IP("198.51.100.5"))
UT = replace(L, service="ns1/ut", protocol="udp", targets=(A,), cluster_ip=IP("10.96.0.47"), external_ips=(), load_balancer_ip=None)
ALL = [P, X, L, F, U, S, UT]

def test_it():
    client = engine.connect()
    tag = image.ensure(client, silent)
    name = "h33-scratch"
    box = client.containers.run(tag, ["600"], entrypoint=["sleep"], name=name, privileged=True, network_mode="none", detach=True)
    def sh(script, stdin=""):
        done = subprocess.run(["docker", "exec", "-i", name, "sh", "-c", script], input=stdin, capture_output=True, text=True)
        print(f"$ {script[:200]}\n[{done.returncode}] {done.stdout}{done.stderr}", file=sys.__stdout__, flush=True)
        return done.stdout
    try:
        sh("python3 -IS -c \"$(cat /usr/lib/testbed/agent/features.py)\" | tr ',' '\\n' | egrep 'ip_vs|dummy|ipset'; lsmod | egrep 'vs|dummy|set'")
        sh("ip link add eth0 type veth peer name eth1; ip link set eth0 up; ip link set eth1 up; ip a a 172.18.0.2/24 dev eth0; ip a a 10.244.0.1/24 dev eth1; ip link set lo up")
        sh("; ".join(f"sysctl -w {k}={v}" for k, v in ipvs.SYSCTLS.items()))
        sh("; ".join("ip " + l for l in ipvs.OBJECTS[0].create))
        sh("ip -json -details link show kube-ipvs0")
        unit = ipvs.dispatch(ALL, NODE)
        sh("ipset restore", unit["ipset"])
        sh("iptables-restore --noflush", unit["iptables"])
        saved = sh("ipset save")
        def cut(text): return sorted(l.partition(" bucketsize")[0].strip() for l in text.splitlines())
        a, b = set(cut(unit["ipset"])), set(cut(saved))
        print("IPSET ONLY OURS", sorted(a - b), "ONLY KERNEL", sorted(b - a), file=sys.__stdout__, flush=True)
        sh("iptables-save > /tmp/s; cat /tmp/s")
        saved = sh("cat /tmp/s")
        o = [l.replace("-I ", "-A ", 1) for l in unit["iptables"].splitlines() if l[0] == "-" ]
        k = [l for l in saved.splitlines() if l[0] == "-"]
        print("RULES ONLY OURS", *sorted(set(o) - set(k)), "ONLY KERNEL", *sorted(set(k) - set(o)), sep="\n", file=sys.__stdout__, flush=True)
        units = {"": unit, **{p.service: ipvs.service([p], NODE) for p in ALL}}
        script = ("import sys,json;sys.path.insert(0,'/usr/lib/testbed');from agent import ipvs;b,n=json.load(sys.stdin);"
                  "import time;t=time.perf_counter();x=ipvs.apply(b,n);print(*x,sep='\\n');print(time.perf_counter()-t)")
        def apply(b, n): return sh(f'python3 -IS -c "{script}"', json.dumps([b, n]))
        apply({}, units); apply(units, units)
        sh("ipvsadm -Ln; ipvsadm -Sn; ip a show kube-ipvs0; ip route show table local | head; ipset list -n | tr '\\n' ' '")
        # a real local server with an established connection
        sh("ip a a 10.244.0.5/32 dev lo; nohup python3 -c \"import socket,time\ns=socket.create_server(('10.244.0.5',80));c=s.accept();time.sleep(60)\" >/dev/null 2>&1 &")
        sh("ip a a 10.244.0.5/32 dev lo; sleep 2; nohup python3 -c \"import socket,time\nc=socket.create_connection(('10.96.0.41',80),5);time.sleep(60)\" >/tmp/c 2>&1 & sleep 6; cat /tmp/c; ipvsadm -Ln | grep -A3 10.96.0.41; ping -c1 -W3 10.96.0.41")
        less = {k: v for k, v in units.items() if k != "ns1/x"}
        less["ns1/svc1"] = ipvs.service([replace(P, targets=(B,))], NODE)
        apply(units, less)
        less["ns1/svc1"] = ipvs.service([replace(P, targets=())], NODE)
        apply(units, less)
        sh("ipvsadm -Ln | grep -A3 10.96.0.41; cat /proc/net/ip_vs | head -8")
        apply(less, units)
        apply(units, {"": unit})
        sh("ipvsadm -Ln; ip a show kube-ipvs0")
        sh("printf -- '-d -t 1.2.3.4:80 -r 1.1.1.1:80\\n-A -t 1.2.3.4:80 -s rr\\n' | ipvsadm --restore; echo status $?; ipvsadm -Ln; ipvsadm -C; printf -- '-A -t 1.2.3.4:80 -s nonesuch\\n-A -t 1.2.3.4:80 -s wlc\\n' | ipvsadm --restore; echo status $?; printf -- '-A -x y\\n' | ipvsadm --restore; echo $?")
    finally:
        box.remove(force=True)
