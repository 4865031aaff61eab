"""Kubernetes manifests, as people write them and as kubectl prints them."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from testbed.errors import TopologyError
from testbed.topology.declared import PodDeclaration
from testbed.topology.load import from_dict
from testbed.topology.manifests import read_manifests
from testbed.topology.model import Container, ContainerPort, Pod
from testbed.topology.source import Problems, documents
from tests.unit.topology.strategies import CNIS

HEAD = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n"
KUBECTL_RUN = """\
apiVersion: v1
kind: Pod
metadata:
  creationTimestamp: null
  labels:
    run: web
  name: web
spec:
  containers:
  - image: nginx
    name: web
    resources: {}
  dnsPolicy: ClusterFirst
  restartPolicy: Always
status: {}
"""


def read(text: str) -> tuple[PodDeclaration, ...]:
    """The pods of a manifest file without problems."""
    problems = Problems()
    values = documents(text, "f.yaml", problems) or []
    pods = read_manifests([("", value) for value in values], problems).pods
    problems.check()
    return pods


def one(spec: str) -> Pod:
    """The pod ``web`` with a spec, on node1."""
    (pod,) = read(HEAD + "".join(f"  {line}\n" for line in spec.splitlines()))
    return pod.on("node1")


def first(container: str) -> Container:
    """The pod's only container."""
    return one(f"containers: [{{name: c, {container}}}]").containers[0]


def test_what_kubectl_run_prints() -> None:
    """``kubectl run web --image=nginx --dry-run=client -o yaml`` is accepted as it is."""
    (pod,) = read(KUBECTL_RUN)
    assert pod.labels == {"run": "web"}
    assert pod.containers[0].argv == ("/usr/sbin/nginx", "-g", "daemon off;")


def test_every_honoured_field() -> None:
    """All of a pod's spec that testbed keeps."""
    pod = one(
        "hostname: host\nrestartPolicy: OnFailure\nshareProcessNamespace: true\n"
        "containers:\n"
        "- name: a\n  image: busybox\n  command: [sh, -c]\n  args: ['echo $(A) $(B) $$(A)']\n"
        "  workingDir: /tmp\n  env: [{name: A, value: x}, {name: B, value: $(A)y}, {name: C}]\n"
        "  ports:\n"
        "  - {name: dns, containerPort: 53, protocol: UDP, hostPort: 5353, hostIP: 127.0.0.1}"
    )
    assert pod == Pod(
        namespace="default",
        name="web",
        node="node1",
        hostname="host",
        restart_policy="OnFailure",
        share_process_namespace=True,
        containers=(
            Container(
                name="a",
                image="busybox",
                argv=("sh", "-c", "echo x xy $(A)"),
                env={"A": "x", "B": "xy", "C": ""},
                working_dir="/tmp",
                ports=(ContainerPort(53, "UDP", "dns", 5353, IPv4Address("127.0.0.1")),),
            ),
        ),
    )


def test_fields_that_are_ignored() -> None:
    """Those of the tables in the modules' docstrings, which change nothing here."""
    one(
        "automountServiceAccountToken: false\nenableServiceLinks: false\nserviceAccountName: a\n"
        "terminationGracePeriodSeconds: 0\ntolerations: [{operator: Exists}]\nschedulerName: x\n"
        "imagePullSecrets: []\npriorityClassName: high\n"
        "containers:\n- name: c\n  image: netexec\n  imagePullPolicy: Always\n"
        "  resources: {requests: {cpu: 1}}\n  terminationMessagePath: /dev/termination-log"
    )


def test_field_references_know_the_pod_and_its_node() -> None:
    """Also inside the command, where they are expanded after scheduling."""
    container = first(
        "image: busybox, args: [echo, $(POD)@$(NODE)], env: ["
        "{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}, "
        "{name: NS, valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}}, "
        "{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]"
    )
    assert container.env == {"POD": "web", "NS": "default", "NODE": "node1"}
    assert container.argv == ("echo", "web@node1")


def test_readiness_gates() -> None:
    """A pod is held back until its own status says that every gate's condition holds."""
    gates = "  readinessGates: [{conditionType: example.com/a}, {conditionType: b}]\n"
    text = HEAD + gates + "  containers: [{name: c, image: netexec}]\nstatus:\n  conditions:\n"
    held = '  - {type: example.com/a, status: "True"}\n  - {type: Ready, status: "True"}\n'
    assert read(text + held + '  - {type: b, status: "False"}\n')[0].gated
    assert read(text + held)[0].on("node1").gated
    assert not read(text + held + '  - {type: b, status: "True"}\n')[0].gated
    assert read(text.partition("status")[0])[0].gated
    assert not read(KUBECTL_RUN)[0].gated


def test_text_from_a_file_is_never_a_shells() -> None:
    """Arguments stay whole, whatever they hold."""
    assert first("image: busybox, command: ['a b; $(id) `id` \"']").argv == ('a b; $(id) `id` "',)


def test_host_network_ports_are_host_ports() -> None:
    """As the API server fills them in."""
    pod = one(
        "hostNetwork: true\ncontainers: [{name: c, image: nginx, ports: [{containerPort: 80}]}]"
    )
    assert pod.containers[0].ports == (ContainerPort(80, host_port=80),)


def test_host_ip_zero_is_every_address() -> None:
    """0.0.0.0 is the same as none."""
    container = first("image: nginx, ports: [{containerPort: 80, hostPort: 80, hostIP: 0.0.0.0}]")
    assert container.ports[0].host_ip is None


def test_a_long_name_is_cut_for_the_hostname() -> None:
    """To 63 characters, not ending in a dash or dot, as kubelet does."""
    name = "a" * 62 + "-b"
    (pod,) = read(HEAD.replace("web", name) + "  containers: [{name: c, image: netexec}]\n")
    assert pod.hostname == "a" * 62


def test_lists_and_documents() -> None:
    """``kind: List`` and several documents give the pods in file order."""
    pod = "{{apiVersion: v1, kind: Pod, metadata: {{name: {}}}, spec: {}}}"
    spec = "{containers: [{name: c, image: netexec}]}"
    items = ", ".join(pod.format(name, spec) for name in ("b", "a"))
    text = f"{{apiVersion: v1, kind: List, metadata: {{}}, items: [{items}]}}\n---\n---\n"
    assert [each.name for each in read(text + pod.format("c", spec))] == ["b", "a", "c"]


def test_namespaces_may_be_declared_later() -> None:
    """In another document, or another manifest."""
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\nspec:\n"
    pod += "  containers: [{name: c, image: netexec}]\n"
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {a: b}}\n"
    assert read(f"{pod}---\n{namespace}")[0].key == "shop/web"
    with pytest.raises(TopologyError, match='namespace "shop", which does not exist'):
        read(pod)


@pytest.mark.parametrize("namespace", ["default", "kube-system", "kube-public", "kube-node-lease"])
def test_namespaces_of_every_cluster(namespace: str) -> None:
    """Those that a new cluster has."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"containers": [{"name": "c", "image": "netexec"}]},
    }
    topology = {
        "services": {"node1": {"image": "testbed-node"}},
        "x-testbed": {"cni": "flannel", "manifests": [pod], "default_pods": 0},
    }
    assert from_dict(topology, cnis=CNIS).pods[0].namespace == namespace
