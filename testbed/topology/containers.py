"""One container of a pod manifest.

Honoured: name, image, command, args, env (``value``, and ``valueFrom.fieldRef`` of
:data:`FIELD_PATHS`), workingDir, ports. Ignored, because ignoring them hides nothing:

========================= ==================================================================
imagePullPolicy           nothing is pulled
resources.requests        a testbed's nodes share one machine; pods spread by their number
terminationMessagePath    nobody reads the message
terminationMessagePolicy  the same
========================= ==================================================================

Everything else is refused with the reason.
"""

from __future__ import annotations

from testbed.topology import applications, names
from testbed.topology.declared import ContainerDeclaration, FieldRef, PortDeclaration
from testbed.topology.model import ContainerPort
from testbed.topology.section import Section
from testbed.topology.source import quote

__all__ = ["FIELD_PATHS", "PROTOCOLS", "read_container"]

FIELD_PATHS = ("metadata.name", "metadata.namespace", "spec.nodeName")
PROTOCOLS = ("TCP", "UDP", "SCTP")

_HONOURED = ("name", "image", "command", "args", "env", "workingDir", "ports")
_IGNORED = {"imagePullPolicy", "resources", "terminationMessagePath", "terminationMessagePolicy"}
_NO_PROBES = "no kubelet probes the containers; `testbed check` probes the network"
_NO_VOLUMES = "every container sees the node image's own files; there are no volumes"
_PRINTED = frozenset({"securityContext"})
"""What kubectl prints empty, where nobody asked for anything."""
_REFUSED = {
    "envFrom": "there are no ConfigMaps and Secrets; write the variables under env",
    "lifecycle": "no kubelet runs hooks; put the steps in command",
    "livenessProbe": _NO_PROBES,
    "readinessProbe": _NO_PROBES,
    "startupProbe": _NO_PROBES,
    "resizePolicy": "resources are not enforced",
    "restartPolicy": "it belongs in the pod's spec",
    "securityContext": "containers run as root with the node's capabilities; remove it",
    "stdin": "nothing is attached to a container; use `testbed exec`",
    "stdinOnce": "nothing is attached to a container; use `testbed exec`",
    "tty": "nothing is attached to a container; use `testbed shell`",
    "volumeDevices": _NO_VOLUMES,
    "volumeMounts": _NO_VOLUMES,
}


def read_container(section: Section, host_network: bool) -> ContainerDeclaration:
    """Read one entry of ``spec.containers``; what is wrong is replaced by a default."""
    section.only(_HONOURED, _REFUSED, ignored=_IGNORED | (section.empty() & _PRINTED))
    name = section.valid("name", names.dns_label)
    if section.get("name") is None:
        section.problem("name", "missing; every container has a name, as in `name: web`")
    image, argv = _program(section)
    _check_resources(section)
    working_dir = section.text("workingDir") or "/"
    if not working_dir.startswith("/"):
        section.problem("workingDir", f"{quote(working_dir)} must be an absolute path")
    return ContainerDeclaration(
        name=name or "",
        image=image,
        argv=argv,
        env=_environment(section),
        working_dir=working_dir,
        ports=tuple(_port(port, host_network) for port in section.sections("ports")),
    )


def _program(section: Section) -> tuple[str, tuple[str, ...]]:
    command = section.texts("command") or ()
    args = section.texts("args") or ()
    image = section.text("image")
    if section.get("image") is None:
        known = ", ".join(applications.APPLICATIONS)
        section.problem("image", f"missing; name an application of the node image: {known}")
    if image is None:
        return "", ()
    try:
        return applications.resolve(image, command, args)
    except ValueError as error:
        section.problem("image", str(error))
        return "", ()


def _check_resources(section: Section) -> None:
    resources = section.section("resources")
    if resources is not None:
        reason = "nothing enforces it here, and a limit that does not hold misleads; remove it"
        resources.only((), {"limits": reason, "claims": reason}, ignored={"requests"})


def _environment(section: Section) -> tuple[tuple[str, str | FieldRef], ...]:
    found: dict[str, str | FieldRef] = {}
    for entry in section.sections("env"):
        entry.only(("name", "value", "valueFrom"))
        name = entry.valid("name", names.environment_name)
        if entry.get("name") is None:
            entry.problem("name", "missing; write `- name: NAME` and `value: …`")
        if name is None:
            continue
        if name in found:
            entry.problem("name", f"{name} is set twice in this container; keep one of them")
        found[name] = _environment_value(entry)
    return tuple(found.items())


def _environment_value(entry: Section) -> str | FieldRef:
    source = entry.section("valueFrom")
    if source is None:
        return entry.text("value") or ""
    if entry.get("value") is not None:
        entry.problem("valueFrom", "given together with value; keep one of them")
    reason = "there are no ConfigMaps and Secrets; write the value"
    source.only(("fieldRef",), dict.fromkeys(("configMapKeyRef", "secretKeyRef"), reason))
    reference = source.section("fieldRef")
    if reference is None:
        return ""
    reference.only(("apiVersion", "fieldPath"))
    path = reference.text("fieldPath") or ""
    if path not in FIELD_PATHS:
        why = (
            "an address is known only once the CNI has attached the pod; ask for it at run time"
            if path in ("status.podIP", "status.podIPs", "status.hostIP", "status.hostIPs")
            else "it is not known here"
        )
        known = ", ".join(FIELD_PATHS)
        reference.problem("fieldPath", f"{quote(path)} is not supported: {why}; known: {known}")
        return ""
    return FieldRef(path)


def _port(section: Section, host_network: bool) -> PortDeclaration:
    section.only(("containerPort", "protocol", "name", "hostPort", "hostIP"))
    container_port = section.integer("containerPort", 1, 65535)
    if section.get("containerPort") is None:
        section.problem("containerPort", "missing; every port has one, from 1 to 65535")
    host_port = section.integer("hostPort", 1, 65535)
    if host_network and None not in (container_port, host_port) and container_port != host_port:
        section.problem(
            "hostPort",
            f"{host_port} differs from containerPort {container_port}, but a hostNetwork pod "
            "listens on the node itself: nothing maps the one to the other; make them equal",
        )
    host_ip = section.address("hostIP")
    if host_ip is not None and host_port is None and not host_network:
        section.problem("hostIP", "means nothing without hostPort; add hostPort or remove hostIP")
    return PortDeclaration(
        ContainerPort(
            container_port=container_port or 0,
            protocol=section.choice("protocol", PROTOCOLS, "TCP"),
            name=section.valid("name", names.port_name) or "",
            host_port=(host_port or container_port) if host_network else host_port,
            host_ip=host_ip if host_ip is None or int(host_ip) else None,
        ),
        section.place,
    )
