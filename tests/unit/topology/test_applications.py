"""What ``image``, ``command`` and ``args`` become."""

from __future__ import annotations

import pytest

from testbed.topology.applications import APPLICATIONS, resolve

NETEXEC = "/usr/local/bin/netexec"
REDIS = ("/usr/bin/redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "")


@pytest.mark.parametrize(
    ("image", "command", "args", "expected"),
    [
        ("netexec", (), (), ("netexec", (NETEXEC,))),
        ("netexec", (), ("--http-port=80",), ("netexec", (NETEXEC, "--http-port=80"))),
        ("netexec", (), ("netexec", "--http-port=80"), ("netexec", (NETEXEC, "--http-port=80"))),
        ("registry.k8s.io/agnhost:2.47", (), ("netexec", "-x"), ("netexec", (NETEXEC, "-x"))),
        ("agnhost", ("/agnhost", "netexec"), (), ("netexec", (NETEXEC,))),
        ("agnhost", (), (), ("pause", ("/pause",))),
        ("agnhost", ("sh",), ("-c", "id"), ("agnhost", ("sh", "-c", "id"))),
        ("busybox", (), (), ("busybox", ("sleep", "infinity"))),
        ("busybox", (), ("nc", "-l"), ("busybox", ("nc", "-l"))),
        ("busybox", ("sh", "-c"), ("id",), ("busybox", ("sh", "-c", "id"))),
        ("nginx", (), (), ("nginx", ("/usr/sbin/nginx", "-g", "daemon off;"))),
        ("nginx", (), ("nginx", "-T"), ("nginx", ("/usr/sbin/nginx", "-T"))),
        ("nginx", ("sleep",), (), ("nginx", ("sleep",))),
        ("redis", (), (), ("redis", REDIS)),
        ("redis", (), ("--port", "7000"), ("redis", (*REDIS, "--port", "7000"))),
        ("redis", (), ("redis-server", "--port", "7"), ("redis", (*REDIS, "--port", "7"))),
        ("redis", (), ("redis-cli", "ping"), ("redis", ("redis-cli", "ping"))),
        ("networkstatic/iperf3", (), (), ("iperf3", ("/usr/bin/iperf3", "-s"))),
        ("iperf3", (), ("-c", "web"), ("iperf3", ("/usr/bin/iperf3", "-c", "web"))),
        ("registry.k8s.io/pause:3.10", (), (), ("pause", ("/pause",))),
    ],
)
def test_argv(
    image: str,
    command: tuple[str, ...],
    args: tuple[str, ...],
    expected: tuple[str, tuple[str, ...]],
) -> None:
    """Command replaces the entrypoint and drops the image's args; args replace only these."""
    assert resolve(image, command, args) == expected


@pytest.mark.parametrize(
    "image",
    [
        "nginx",
        "nginx:1.27",
        "library/nginx",
        "localhost:5000/team/nginx:1.27",
        "docker.io/library/nginx@sha256:00ff",
        "docker.io/library/nginx:1.27@sha256:00ff",
    ],
)
def test_image_names(image: str) -> None:
    """Only the last component counts, without tag and digest."""
    assert resolve(image, (), ())[0] == "nginx"


@pytest.mark.parametrize("image", ["", "httpd", "nginx/extra", ":", "Nginx"])
def test_unknown_images(image: str) -> None:
    """The message lists every application there is."""
    with pytest.raises(ValueError, match="is not an application") as raised:
        resolve(image, (), ())
    assert all(name in str(raised.value) for name in APPLICATIONS)


def test_every_application_is_described() -> None:
    """For the documentation and error messages."""
    assert all(application.description for application in APPLICATIONS.values())
