"""What the guest is made of: an emulator, a root, a kernel, Docker's data and Python packages.

Each is made when its inputs changed, and only then.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.errors import MissingCapabilityError
from testbed.node.context import SUITE
from testbed.node.host import Host
from testbed.node.progress import Progress
from tests.vm import debian, disks
from tests.vm.cache import Cache, key
from tests.vm.commands import isolated, run
from tests.vm.disks import filesystem, partitioned
from tests.vm.machine import Disk
from tests.vm.payload import requirements

if TYPE_CHECKING:
    import docker

__all__ = ["FILES", "KERNELS", "Artefacts", "Maker"]

KERNELS = {"backports": debian.BACKPORTS, "stable": SUITE}
"""Debian releases that a kernel can come from."""
FILES = {
    "kernel": ("vmlinuz", "modules.img"),
    "root": ("root.img",),
    "images": ("docker.img",),
    "packages": ("packages.img",),
}
"""The files of each artefact that a guest is started with."""
DISKS = [Disk(name) for name in ("root.img", "modules.img", "docker.img", "packages.img")]

_HERE = Path(__file__).parent
_RECIPE = [
    (_HERE / name).read_text() for name in ("artefacts.py", "debian.py", "disks.py", "load-image")
]
"""How everything is made: another way makes it anew."""
_PACKAGES = ("crun", "docker.io", "iproute2", "kmod", "procps", "python3", "tshark")
"""Of the guest's root; everything else that tests need is in the node image."""
_MOUNT_POINTS = ("usr/lib/modules", "var/lib/docker", "opt/packages", "payload")
_EMULATOR = "emulator-backports"
_PYTHON = "3.11"
"""The minor version of the suite's Python."""
_WHEELS = ("manylinux2014_x86_64", "manylinux_2_28_x86_64")
_CHROOT = 'mount --bind "$1" "$2$3"; root=$2; shift 3; exec chroot "$root" "$@"'
"""Run a command of a root with a folder of ours mounted there."""


@dataclass(frozen=True, slots=True)
class Artefacts:
    """Everything that is there when a guest starts."""

    emulator: Path
    parts: dict[str, Path]
    """By the names of ``FILES``."""

    def link(self, folder: Path) -> None:
        """Put the guest's files into ``folder``."""
        for part, names in FILES.items():
            for name in names:
                (folder / name).hardlink_to(self.parts[part] / name)


class Maker:
    """Makes what is missing in a cache, telling ``report``."""

    def __init__(self, cache: Cache, report: Progress, host: Host | None = None) -> None:
        self.cache = cache
        self.report = report
        self.host = host or Host()

    def everything(
        self, client: docker.DockerClient, project: Path, kernel: str | None
    ) -> Artefacts:
        """Return all artefacts for a snapshot of the project, with the kernel asked for.

        Without a kernel: the newest one that there is.

        Raises:
            MissingCapabilityError: the mirror has no backports, which were asked for.
            NodeError: a package, the node image or a disk could not be made.
        """
        debian_root = self._debian()
        root = debian_root / "tree"
        release, lines = self._sources(root, kernel)
        emulator = self._emulator(release, lines)
        parts = {
            "root": self._root(root),
            "kernel": self._kernel(root, kernel or release, lines),
            "packages": self._packages(root, project),
            "images": self._images(root, project, client),
        }
        kernels = {self.cache.path(f"kernel-{name}", _kernel_key(name)) for name in KERNELS}
        if old := self.cache.forget({debian_root, emulator, *parts.values(), *kernels}):
            self.report("cache", f"removed {', '.join(old)}")
        return Artefacts(emulator / "tree", parts)

    def _artefact(self, name: str, key: str, make: Callable[[Path], object], what: str) -> Path:
        def told(folder: Path) -> None:
            self.report(name.partition("-")[0], what)
            make(folder)

        return self.cache.artefact(name, key, told)

    def _debian(self) -> Path:
        def make(folder: Path) -> None:
            root = folder / "tree"
            debian.install(root, _PACKAGES, self.host)
            for name in _MOUNT_POINTS:
                (root / name).mkdir(parents=True, exist_ok=True)

        made = key(_RECIPE, SUITE, _PACKAGES)
        return self._artefact("debian", made, make, f"installing Debian {SUITE}")

    def _root(self, root: Path) -> Path:
        init = _HERE / "guest-init"

        def make(folder: Path) -> None:
            shutil.copy(init, root)
            partitioned(root, folder / "root.img", 4096)

        made = key(root.parent.name, init.read_text())
        return self._artefact("root", made, make, "writing the guest's root")

    def _sources(self, root: Path, kernel: str | None) -> tuple[str, list[str]]:
        """The newest release that answers, and where packages come from."""
        lines = debian.sources(root)
        extra = debian.backports(lines)
        if extra and (self.cache.path(_EMULATOR, _emulator_key()).exists() or self._answers(extra)):
            return "backports", [*lines, extra]
        if kernel == "backports":
            raise MissingCapabilityError(
                f"this machine's mirror has no {debian.BACKPORTS}. Use `--kernel stable`."
            )
        self.report("cache", f"no {debian.BACKPORTS} here: emulator and kernel are {SUITE}'s")
        return "stable", lines

    def _answers(self, source: str) -> bool:
        with tempfile.TemporaryDirectory(dir=self.cache.root) as folder:
            return debian.reachable(source, Path(folder))

    def _kernel(self, root: Path, name: str, lines: Sequence[str]) -> Path:
        chosen = lines if name == "backports" else debian.sources(root)

        def make(folder: Path) -> None:
            tree = folder / "tree"
            debian.unpack(tree, "linux-image-cloud-amd64", chosen, self.host)
            (vmlinuz,) = (tree / "boot").glob("vmlinuz-*")
            vmlinuz.rename(folder / "vmlinuz")
            modules = tree / "lib/modules"
            (version,) = (each.name for each in modules.iterdir())
            self._within(root, modules, "/usr/lib/modules", "depmod", version)
            filesystem(modules, folder / "modules.img", 512)
            shutil.rmtree(tree)

        what = f"unpacking the kernel of {KERNELS[name]}"
        return self._artefact(f"kernel-{name}", _kernel_key(name), make, what)

    def _emulator(self, release: str, lines: Sequence[str]) -> Path:
        def make(folder: Path) -> None:
            debian.unpack(folder / "tree", "qemu-system-x86", lines, self.host)

        what = f"unpacking QEMU of {KERNELS[release]}"
        return self._artefact(f"emulator-{release}", _emulator_key(), make, what)

    def _packages(self, root: Path, project: Path) -> Path:
        wanted = requirements((project / "pyproject.toml").read_text())

        def make(folder: Path) -> None:
            packages = folder / "packages"
            target = ["--target", str(packages), "--no-compile", "--python-version", _PYTHON]
            wheels = [word for name in _WHEELS for word in ("--platform", name)]
            pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
            run([*pip, "--only-binary=:all:", *target, *wheels, *wanted])
            compiled = ["--invalidation-mode", "unchecked-hash", "/opt/packages"]
            compileall = ["python3", "-m", "compileall", "-q", *compiled]
            self._within(root, packages, "/opt/packages", *compileall)
            filesystem(packages, folder / "packages.img", 512)
            shutil.rmtree(packages)

        made = key(root.parent.name, wanted)
        return self._artefact("packages", made, make, "fetching Python packages")

    def _images(self, root: Path, project: Path, client: docker.DockerClient) -> Path:
        reference = self._node_image(project)

        def make(folder: Path) -> None:
            archive, data = folder / "image.tar", root / "var/lib/docker"
            with archive.open("wb") as file:
                for chunk in client.images.get(reference).save(named=True):
                    file.write(chunk)
            written = disks.command(data, folder / "docker.img", 8192)
            run(isolated([str(_HERE / "load-image"), str(root), str(archive), *written]))
            archive.unlink()

        made = key(root.parent.name, reference, client.images.get(reference).id)
        return self._artefact("images", made, make, f"loading {reference} into the guest's Docker")

    def _node_image(self, project: Path) -> str:
        """Have the snapshot's own code build the image that it will look for in the guest."""
        self.report("image", "building the node image, if it is not there")
        argv = [sys.executable, "-m", "testbed.cli.main", "image", "build"]
        return run(isolated(argv, network=True), folder=project).splitlines()[-1]

    def _within(self, root: Path, folder: Path, where: str, *argv: str) -> None:
        """Run a program of ``root`` that works on ``folder``."""
        run(isolated(["sh", "-euc", _CHROOT, "sh", str(folder), str(root), where, *argv]))


def _kernel_key(name: str) -> str:
    return key(_RECIPE, KERNELS[name])


def _emulator_key() -> str:
    return key(_RECIPE, SUITE)
