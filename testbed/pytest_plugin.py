"""testbed's pytest plugin: fixtures that bring up testbeds, and reports that explain failures.

A test says by a marker which topology it needs, or ``testbed_topology`` in pytest's configuration
does for all. Tests with the same topology and overrides share one testbed, which is removed when
the last of them is over, whatever happened. ``docs/testing.md`` has the whole story.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from testbed import pytest_recorder
from testbed.errors import TestbedError
from testbed.packets import explanations

if TYPE_CHECKING:
    from testbed.api.handles import Node, Pod
    from testbed.api.packets import Captured
    from testbed.api.shared import Asked
    from testbed.api.testbed import Testbed

__all__ = ["Sharing", "capture", "flight_recorder", "nodes", "pods", "testbed"]

_FIXTURE = "testbed"
_INI = "testbed_topology"
_MARKER = (
    "testbed(topology, *, nodes, pods_per_node, ipip, proxy, name): the topology that a test needs"
)
_NOT_PARAMETRISED = (
    f"the marker {_FIXTURE} has no effect here: pytest gives no parameters to methods of "
    "unittest.TestCase. Make it a class of its own or a function, or set the topology by "
    f"{_INI} in pytest's configuration."
)
_OVERLOOKED = (
    f"the marker {_FIXTURE} has no effect on request.getfixturevalue: name the fixtures among the "
    "test's arguments, or in @pytest.mark.usefixtures."
)
_ENDING = (signal.SIGTERM, signal.SIGHUP)
"""From continuous integration that has no more patience, and from a terminal that is closed."""
_VALUES = (str, int, Path, type(None))
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
        self._handled: list[signal.Signals] = []
        self._overlooked = False

    def asked(self, topology: str | Path, **overrides: Any) -> Asked:
        """Always the same object for the same: pytest compares parameters by identity, too."""
        from testbed.api.shared import Asked

        path = self._config.rootpath / topology
        found = Asked.of(str(path if path.is_file() else topology), overrides)
        return self._asked.setdefault(found, found)

    def chosen(self, parameter: object) -> Asked:
        """What a parameter of the fixture means: a topology, or what a marker asked for."""
        from testbed.api.shared import Asked

        if isinstance(parameter, str | Path):
            return self.asked(parameter)
        if isinstance(parameter, Asked):
            return parameter
        if parameter is None:
            return self.default()
        return pytest.fail(f"{parameter!r} is no topology: give a name or a path", pytrace=False)

    def default(self) -> Asked:
        """What tests without a marker use."""
        if self._overlooked:
            pytest.fail(_OVERLOOKED, pytrace=False)
        topology = str(self._config.getini(_INI))
        if not topology:
            pytest.fail(
                "which topology? Mark the test, as in @pytest.mark.testbed('flannel', nodes=2), "
                f"or set {_INI} = flannel in pytest's configuration.",
                pytrace=False,
            )
        written = self._config.inipath
        path = (written.parent if written else self._config.rootpath) / topology
        return self.asked(path if path.is_file() else topology)

    def running(self, asked: Asked) -> Iterator[Testbed]:
        """Bring up a testbed, and remove it afterwards."""
        self._end_well_when_terminated()
        kept, told = len(self._kept), list[str]()
        try:
            yield from self._running(asked)
        except Exception as error:
            told = _told(error)
            if not told:
                raise
        if told:  # not above: pytest would show the error that is being handled, too
            pytest.fail("\n".join([*told, *map(_kept, self._kept[kept:])]), pytrace=False)

    def _running(self, asked: Asked) -> Iterator[Testbed]:
        from testbed.api.shared import Use

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
        if any(map(_is_parameter, metafunc.definition.iter_markers("parametrize"))):
            return  # which is said of this test, and a marker perhaps of its module
        values = [*marker.args, *marker.kwargs.values()]
        if len(marker.args) != 1 or not all(isinstance(each, _VALUES) for each in values):
            pytest.fail(
                f"{metafunc.definition.nodeid}: the marker takes one topology: {_MARKER}",
                pytrace=False,
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
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """What explained the test before explains nothing of this one.

        A marker that would have no effect is an error: the test would get another topology.
        """
        explanations.clear()
        marked = item.get_closest_marker(_FIXTURE) is not None
        self._overlooked = marked and _parameter(item) is None
        if marked and _parameter(item) == _INI and not hasattr(item, "callspec"):
            pytest.fail(_NOT_PARAMETRISED, pytrace=False)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Explain a failure before fixtures clean up.

        The flight recorder saved already: an explanation may send packets, which rules count.
        """
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
        for number in self._handled:
            signal.signal(number, signal.SIG_DFL)
        self._handled.clear()

    def _end_well_when_terminated(self) -> None:
        """These signals would end Python without any teardown."""
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, signal.default_int_handler)
                    self._handled.append(number)


def _parameter(item: pytest.Item) -> object:
    """What sets a test's testbed apart from others; ``None``: it has none."""
    if _FIXTURE not in getattr(item, "fixturenames", ()):
        return None
    callspec = getattr(item, "callspec", None)
    return (callspec.params.get(_FIXTURE) if callspec else None) or _INI


def _is_parameter(mark: pytest.Mark) -> bool:
    """Whether ``@pytest.mark.parametrize`` is of the fixture ``testbed``."""
    names = mark.args[0] if mark.args else mark.kwargs.get("argnames", ())
    return _FIXTURE in (re.split(r"[,\s]+", names) if isinstance(names, str) else names)


def _told(error: Exception) -> list[str]:
    """What an error that is known says, which no traceback explains better; else nothing."""
    from testbed.api.shared import NotAsPlannedError

    if isinstance(error, ExceptionGroup):
        each = [_told(one) for one in error.exceptions]
        return [*chain.from_iterable(each)] if all(each) else []
    return [str(error)] if isinstance(error, TestbedError | NotAsPlannedError) else []


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
    yield from sharing.running(sharing.chosen(getattr(request, "param", None)))


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
