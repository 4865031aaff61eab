"""The flight recorder as a pytest plugin: what passed a testbed while a test ran that then failed.

It records on all nodes of the testbeds that it is told to watch. When a test's setup or call fails,
the frames of that test and its nodes' evidence are saved in a folder of the test's name, before any
fixture is torn down. The report has a section that lists the files, and JUnit's properties name
the folder. A failure of the recorder is told there, too; it never fails a test.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from testbed.flight_folder import cleared, folder_name, save
from testbed.flight_recorder import FlightRecorder

__all__ = ["PROPERTY", "Recorder", "Watched", "pytest_addoption"]

PROPERTY = "testbed_flight_recorder"
"""The JUnit property, and what the report's section is called after."""
_SECTION = "testbed flight recorder"
_OWN_FOLDER = ".testbed"
_READY_SECONDS = 2.0


class Watched(Protocol):
    """A testbed that can be watched: its containers are called ``NAME-NODE``."""

    @property
    def name(self) -> str:
        """The testbed's name."""

    @property
    def client(self) -> Any:
        """The engine."""

    @property
    def cluster(self) -> Any:
        """Its topology."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the flight recorder."""
    group = parser.getgroup("testbed")
    group.addoption(
        "--no-flight-recorder",
        action="store_true",
        help="do not record what passes the testbeds' nodes",
    )
    group.addoption(
        "--flight-dir",
        metavar="DIR",
        help="where failed tests' packets and evidence are saved (.testbed/flight in the root)",
    )


class Recorder:
    """Watches testbeds, and saves what it knows when a test fails."""

    def __init__(self, config: pytest.Config) -> None:
        self.enabled = not config.getoption("--no-flight-recorder")
        chosen = config.getoption("--flight-dir")
        self._own = None if chosen else config.rootpath / _OWN_FOLDER
        own = config.rootpath / _OWN_FOLDER / "flight"
        self.folder = Path(chosen).absolute() if chosen else own  # tests change the directory
        self._recorders: dict[str, FlightRecorder] = {}
        self._problems: list[str] = []
        self._began_ns = 0

    def watch(self, testbed: Watched) -> None:
        """Record on all nodes of a testbed from now on; returns at once."""
        if not self.enabled or testbed.name in self._recorders:
            return
        cluster = testbed.cluster
        containers = {name: f"{testbed.name}-{name}" for name in cluster.machines}
        recorder = FlightRecorder(testbed.client, cluster, containers)
        self._recorders[testbed.name] = recorder
        with self._harmless("could not be begun"):
            recorder.start()

    def unwatch(self, name: str) -> None:
        """Stop recording on the testbed of this name, if it is watched."""
        if recorder := self._recorders.pop(name, None):
            with self._harmless("could not be stopped"):
                recorder.stop()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, None, None]:
        """A test's time begins with its setup; it is not called before recording has begun."""
        self._began_ns = time.time_ns()
        yield
        for recorder in self._recorders.values():
            recorder.wait(_READY_SECONDS)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Save while the testbeds are as the failed test left them."""
        end_ns = time.time_ns()
        report = yield
        if report.failed and report.when != "teardown" and self._recorders:
            self._save(item, report, end_ns)
        return report

    def pytest_sessionfinish(self) -> None:
        """Stop everything that is still watched."""
        for name in tuple(self._recorders):
            self.unwatch(name)

    @contextmanager
    def _harmless(self, what: str) -> Iterator[None]:
        """Keep what goes wrong in the block for the next report: a recorder fails no test."""
        try:
            yield
        except Exception as error:
            self._problems.append(f"{what}: {error!r}")

    def _save(self, item: pytest.Item, report: pytest.TestReport, end_ns: int) -> None:
        folder = self.folder / folder_name(item.nodeid)
        lines = [str(folder)]
        with self._harmless("could not be saved"):
            if self._own:
                self._own.mkdir(parents=True, exist_ok=True)
                (self._own / ".gitignore").write_text("*\n")
            cleared(folder)
            for name, recorder in self._recorders.items():
                several = len(self._recorders) > 1
                found = recorder.collect(self._began_ns, end_ns)
                lines += save(
                    folder / name if several else folder,
                    found,
                    headline=f"{item.nodeid} failed ({report.when}) on testbed {name}",
                    slice_ns=(self._began_ns, end_ns),
                )
        lines += self._problems
        self._problems.clear()
        if folder.exists():
            property_ = (PROPERTY, str(folder))
            item.user_properties.append(property_)
            report.user_properties.append(property_)
        report.sections.append((_SECTION, "\n  ".join(lines)))
