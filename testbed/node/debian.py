"""The Debian image that the node image is built on: local, pulled, or made from Debian's packages.

Where no registry answers, mmdebstrap makes a minimal Debian from the same mirrors that this
machine's apt uses, in 13 s, and the engine imports it as ``testbed-base:bookworm``.
"""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from testbed.errors import MissingCapabilityError
from testbed.node.context import SUITE
from testbed.node.host import Host, as_root, install, tail
from testbed.node.progress import Progress

if TYPE_CHECKING:
    import docker

__all__ = ["BOOTSTRAPPED", "LABEL", "PUBLISHED", "ensure", "mirrors", "proxies"]

PUBLISHED = f"debian:{SUITE}-slim"
"""Debian's own image, on every public registry."""
BOOTSTRAPPED = f"testbed-base:{SUITE}"
LABEL = "testbed.image"
"""On every image that testbed makes: ``node`` or ``debian``."""
_PROXY_VARIABLES = (
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)
_SILENCE_SECONDS = 15.0
"""How long a registry may say nothing before it is given up."""
_MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_PACKAGES = ("mmdebstrap", "debian-archive-keyring", "gpg")
"""gpg finds the right key where the host's own apt does not trust Debian (Ubuntu)."""
_UNREAD = ("man", "doc", "info", "locale")


def ensure(client: docker.DockerClient, host: Host, report: Progress) -> str:
    """Return a reference of a Debian image that the engine has, getting or making one.

    Raises:
        MissingCapabilityError: no registry answers, and this machine cannot make the image.
    """
    for reference in (PUBLISHED, BOOTSTRAPPED):
        if _present(client, reference):
            return reference
    report("image", f"pulling {PUBLISHED}")
    problem = _pull(client)
    if not problem:
        return PUBLISHED
    report("image", f"no registry ({problem}); making Debian {SUITE} with mmdebstrap")
    if host.which("mmdebstrap") is None or not host.path(_KEYRING).exists():
        why = f"{PUBLISHED} cannot be pulled ({problem}) and mmdebstrap is not installed"
        install(host, _PACKAGES, why, report, "image")
    if not host.is_root:
        raise MissingCapabilityError(
            f"{PUBLISHED} cannot be pulled ({problem}), and only root can make it. Run:\n"
            f"  {as_root('setup')}"
        )
    _bootstrap(client, host, report)
    return BOOTSTRAPPED


def mirrors(host: Host) -> tuple[str, ...]:
    """This machine's own Debian mirrors as sources of ``SUITE``; empty: mmdebstrap's default."""
    wanted = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    listing = host.run(["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"])
    suites = {"Debian": (SUITE, f"{SUITE}-updates"), "Debian-Security": (f"{SUITE}-security",)}
    sources: dict[str, None] = {}
    for line in listing.output.splitlines() if listing.code == 0 else ():
        origin, label, uri = (*line.split("|"), "", "")[:3]
        usable = origin == "Debian" and uri.startswith(("http://", "https://"))
        for suite in suites.get(label, ()) if usable else ():
            sources[f"deb {uri} {suite} main"] = None
    complete = any(f" {SUITE} main" in source for source in sources)
    return tuple(sources) if complete else ()


def proxies(host: Host) -> dict[str, str]:
    """The HTTP proxies of our environment, else of this machine's apt, as variables."""
    environment = host.environment()
    found = {name: environment[name] for name in _PROXY_VARIABLES if environment.get(name)}
    if not found and (proxy := _apt_setting(host, "Acquire::http::Proxy")):
        found["http_proxy"] = proxy
    return found


def _apt_setting(host: Host, name: str) -> str:
    answer = host.run(["apt-config", "shell", "VALUE", name])
    _, _, quoted = answer.output.strip().partition("VALUE=")
    return quoted.strip("'\"") if answer.code == 0 else ""


def _present(client: docker.DockerClient, reference: str) -> bool:
    from docker.errors import ImageNotFound

    try:
        client.images.get(reference)
    except ImageNotFound:
        return False
    return True


def _pull(client: docker.DockerClient) -> str:
    """Pull the published image; return why it failed, empty if it did not."""
    repository, _, tag = PUBLISHED.partition(":")
    lines: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def follow() -> None:
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        try:
            for line in client.api.pull(repository, tag=tag, stream=True, decode=True):
                lines.put(line)
            lines.put(None)
        except (DockerException, RequestException) as error:
            lines.put({"error": str(getattr(error, "explanation", None) or error)})

    # the engine retries a silent registry for minutes and cannot be told not to: stop listening
    threading.Thread(target=follow, daemon=True).start()
    try:
        while line := lines.get(timeout=_SILENCE_SECONDS):
            if "error" in line:
                return _brief(str(line["error"]))
    except queue.Empty:
        return f"silent for {_SILENCE_SECONDS:.0f} s"
    return "" if _present(client, PUBLISHED) else "the engine did not keep it"


def _brief(error: str) -> str:
    return error.strip().splitlines()[0].rsplit(": ", 2)[-1] if error.strip() else "unknown error"


def _bootstrap(client: docker.DockerClient, host: Host, report: Progress) -> None:
    with tempfile.NamedTemporaryFile(prefix="testbed-debian-", suffix=".tar") as archive:
        command = [*_mmdebstrap(host), SUITE, archive.name, *mirrors(host)]
        done = host.run(command, env=proxies(host))
        if done.code:
            raise MissingCapabilityError(
                f"mmdebstrap could not make a Debian {SUITE} (code {done.code}):\n"
                f"{tail(done.output)}\n"
                "Correct this machine's apt sources (`apt-get update` must work), or pull "
                f"{PUBLISHED} by other means, then run `testbed setup` again."
            )
        report("image", f"importing {BOOTSTRAPPED}")
        _import(client, archive)


def _mmdebstrap(host: Host) -> Iterator[str]:
    yield from ("mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar")
    # a host that takes mirrors whatever their age (a snapshot, a wrong clock) needs the same inside
    for name in ("Acquire::Check-Valid-Until", "Acquire::Check-Date"):
        if value := _apt_setting(host, name):
            yield f'--aptopt={name} "{value}"'
    yield "--dpkgopt=force-unsafe-io"  # the archive is all that is kept: no need to sync files
    for folder in _UNREAD:
        yield f"--dpkgopt=path-exclude=/usr/share/{folder}/*"
    if host.path(_MERGED_USR).is_dir():
        # otherwise the package usrmerge converts / afterwards, and brings 50 MB of Perl for it
        yield from (f"--hook-dir={_MERGED_USR}", "--include=usr-is-merged")


def _import(client: docker.DockerClient, archive: IO[bytes]) -> None:
    repository, _, tag = BOOTSTRAPPED.partition(":")
    client.api.import_image(
        src=archive.name, repository=repository, tag=tag, changes=[f"LABEL {LABEL}=debian"]
    )
