"""testbed's pytest plugin: fixtures that bring up testbeds, and reports that explain failures.

A test says by a marker which topology it needs, or ``testbed_topology`` in pytest's configuration
does for all. Tests with the same topology and overrides share one testbed, which is removed when
the last of them is over, whatever happened. ``docs/testing.md`` has the whole story.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import pytest

from testbed import pytest_recorder
from testbed.packets import explanations

if TYPE_CHECKING:
    from testbed.api.handles import Node, Pod
    from testbed.api.packets import Captured
    from testbed.api.shared import Asked
    from testbed.api.testbed import Testbed

__all__ = ["Sharing", "capture", "flight_recorder", "nodes", "pods", "testbed"]

_FIXTURE = "testbed"
_INI = "testbed_topology"
_MARKER = "testbed(topology, *, nodes, pods_per_node, ipip, name): the topology that a test needs"
_RECORDER, _SHARING = "testbed-flight-recorder", "testbed-sharing"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options, and the default topology."""
    group = parser.getgroup("testbed")
    group.addoption(
        "--testbed-reuse",
        action="store_true",
        help="use the testbeds that run under the topologies' own names, or make them; leave them",
    )
    group.addoption(
        "--testbed-keep",
        action="store_true",
        help="leave a testbed running when a test that uses it fails",
    )
    parser.addini(
        _INI, "topology of tests without a marker: the name of one of testbed's own, or a path"
    )
    pytest_recorder.pytest_addoption(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, and ``testbed://`` to testinfra; watch for failing tests."""
    from testbed.api import backend

    config.addinivalue_line("markers", _MARKER)
    backend.register()
    recorder = pytest_recorder.Recorder(config)
    config.pluginmanager.register(recorder, _RECORDER)
    config.pluginmanager.register(Sharing(config, recorder), _SHARING)


class Sharing:
    """Which testbed each test uses, and what becomes of it when tests fail."""

    def __init__(self, config: pytest.Config, recorder: pytest_recorder.Recorder) -> None:
        self._config = config
        self._recorder = recorder
        self._asked: dict[Asked, Asked] = {}
        self._use: Any = None
        self._kept: list[str] = []
        self._handled: Any = None

    def asked(self, topology: str, **overrides: Any) -> Asked:
        """Always the same object for the same: pytest compares parameters by identity, too."""
        from testbed.api.shared import Asked

        path = self._config.rootpath / topology
        found = Asked.of(str(path) if path.is_file() else topology, overrides)
        return self._asked.setdefault(found, found)

    def default(self) -> Asked:
        """What tests without a marker use."""
        topology = str(self._config.getini(_INI))
        if not topology:
            pytest.fail(
                "which topology? Mark the test, as in @pytest.mark.testbed('flannel', nodes=2), "
                f"or set {_INI} = flannel in pytest's configuration.",
                pytrace=False,
            )
        return self.asked(topology)

    def running(self, asked: Asked) -> Iterator[Testbed]:
        """Bring up a testbed, and remove it afterwards."""
        from testbed.api.shared import Use

        self._end_well_when_terminated()
        option = self._config.getoption
        self._use = use = Use(asked.load(), option("--testbed-reuse"), option("--testbed-keep"))
        try:
            with use() as found:
                self._recorder.watch(found)
                try:
                    yield found
                finally:
                    self._recorder.unwatch(use.name)
        finally:
            self._use = None
            if use.stays and not use.reuse:
                self._kept.append(use.name)

    @pytest.hookimpl(trylast=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """A marked test gets its topology as the parameter of the fixture."""
        marker = metafunc.definition.get_closest_marker(_FIXTURE)
        if marker is None or _FIXTURE not in metafunc.fixturenames:
            return
        if len(marker.args) != 1 or not isinstance(marker.args[0], str):
            raise pytest.UsageError(
                f"{metafunc.definition.nodeid}: the marker takes one topology: {_MARKER}"
            )
        asked = self.asked(marker.args[0], **marker.kwargs)
        metafunc.parametrize(_FIXTURE, [asked], indirect=True, scope="session", ids=[str(asked)])

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Tests that share a testbed run one after another, so that it is brought up once.

        A test without any stays behind the one before it.
        """
        sharing: dict[object, list[pytest.Item]] = {}
        last: object = None
        for item in items:
            last = _parameter(item) or last
            sharing.setdefault(last, []).append(item)
        items[:] = [each for group in sharing.values() for each in group]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """What explained the test before explains nothing of this one."""
        explanations.clear()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Explain a failure while the testbed is as the test left it."""
        report = yield
        if report.failed and report.when != "teardown":
            texts = []
            if call.excinfo is not None and call.excinfo.errisinstance(AssertionError):
                texts.append(_explanation())
            if self._use is not None and _FIXTURE in getattr(item, "fixturenames", ()):
                self._use.failed = True
                if self._use.stays and not self._use.reuse:
                    texts.append(_kept(self._use.name))
            report.sections += [(_FIXTURE, text) for text in texts if text]
        return report

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was left running, and how it is removed."""
        for name in self._kept:
            terminalreporter.write_line(_kept(name), yellow=True)

    def pytest_unconfigure(self) -> None:
        """Handle signals as before."""
        if self._handled is not None:
            signal.signal(signal.SIGTERM, self._handled)
            self._handled = None

    def _end_well_when_terminated(self) -> None:
        """SIGTERM, as continuous integration sends it, would end Python without any teardown."""
        first = self._handled is None and threading.current_thread() is threading.main_thread()
        if first and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self._handled = signal.signal(signal.SIGTERM, signal.default_int_handler)


def _parameter(item: pytest.Item) -> object:
    """What sets a test's testbed apart from others; ``None``: it has none."""
    if _FIXTURE not in getattr(item, "fixturenames", ()):
        return None
    callspec = getattr(item, "callspec", None)
    return callspec.params.get(_FIXTURE, _INI) if callspec else _INI


def _explanation() -> str:
    try:
        return explanations.last()
    except Exception as error:  # it must not hide the failure that it is to explain
        return f"no explanation: {error}"


def _kept(name: str) -> str:
    return (
        f"testbed {name} was left running: `testbed shell --name {name} node1` to look into it, "
        f"`testbed down {name}` to remove it"
    )


@pytest.fixture(scope="session")
def testbed(request: pytest.FixtureRequest) -> Iterator[Testbed]:
    """A running testbed of the topology that the test is marked with, shared with others."""
    sharing = request.config.pluginmanager.get_plugin(_SHARING)
    assert isinstance(sharing, Sharing)
    chosen = getattr(request, "param", None)
    asked = sharing.asked(chosen) if isinstance(chosen, str) else chosen
    yield from sharing.running(asked or sharing.default())


@pytest.fixture(scope="session")
def nodes(testbed: Testbed) -> Mapping[str, Node]:
    """The testbed's nodes, by name."""
    return testbed.nodes


@pytest.fixture(scope="session")
def pods(testbed: Testbed) -> Mapping[str, Pod]:
    """The testbed's pods, by name (of namespace ``default``) or ``namespace/name``."""
    return testbed.pods


@pytest.fixture(scope="session")
def capture(testbed: Testbed) -> Callable[..., AbstractContextManager[Captured]]:
    """What captures while a block runs, as :meth:`testbed.Testbed.capture` does."""
    return testbed.capture


@pytest.fixture(scope="session")
def flight_recorder(request: pytest.FixtureRequest) -> pytest_recorder.Recorder:
    """The flight recorder, to ``watch`` testbeds that tests bring up themselves."""
    found = request.config.pluginmanager.get_plugin(_RECORDER)
    assert isinstance(found, pytest_recorder.Recorder)
    return found
