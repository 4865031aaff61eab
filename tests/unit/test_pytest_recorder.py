"""When the pytest plugin of the flight recorder saves, and that it never fails a test."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from testbed import pytest_recorder
from testbed.flight_recorder import Evidence
from testbed.pytest_recorder import Recorder


class FakeFlightRecorder:
    """Finds nothing, or fails."""

    made: list[FakeFlightRecorder]
    error: Exception | None = None

    def __init__(self, client: Any, cluster: Any, containers: dict[str, str]) -> None:
        del client, cluster
        self.containers = containers
        self.said: list[str] = []
        self.made.append(self)

    def start(self) -> None:
        """Nothing to begin."""
        self.said.append("start")

    def wait(self, seconds: float) -> None:
        """Nothing to wait for."""
        del seconds
        self.said.append("wait")

    def collect(self, begin_ns: int, end_ns: int) -> list[Evidence]:
        """One node's nothing."""
        if self.error:
            raise self.error
        assert 0 < begin_ns <= end_ns
        return [Evidence("node1")]

    def stop(self) -> None:
        """Nothing to end."""
        self.said.append("stop")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeFlightRecorder]:
    """Every flight recorder that the plugin makes."""
    fakes: list[FakeFlightRecorder] = []
    monkeypatch.setattr(FakeFlightRecorder, "made", fakes, raising=False)
    monkeypatch.setattr(pytest_recorder, "FlightRecorder", FakeFlightRecorder)
    return fakes


def recorder(root: Path, *watched: str, **options: Any) -> Recorder:
    """A plugin that watches testbeds, in the middle of a test."""
    given = {"--no-flight-recorder": False, "--flight-dir": None, **options}
    config: Any = SimpleNamespace(getoption=given.__getitem__, rootpath=root)
    plugin = Recorder(config)
    named = SimpleNamespace
    for name in watched:
        cluster = named(machines=("node1", "tor"))
        plugin.watch(named(name=name, client=None, cluster=cluster))
    assert list(plugin.pytest_runtest_setup()) == [None]
    return plugin


def report(plugin: Recorder, when: str = "call", *, failed: bool = True) -> Any:
    """What becomes of a test's report; the item's properties are the report's, as in pytest."""
    item: Any = SimpleNamespace(nodeid="a.py::test", user_properties=[])
    made: Any = SimpleNamespace(failed=failed, when=when, sections=[], user_properties=[])
    hook = plugin.pytest_runtest_makereport(item)
    next(hook)
    with pytest.raises(StopIteration) as end:
        hook.send(made)
    assert end.value.value is made
    assert item.user_properties == made.user_properties
    return made


@pytest.mark.parametrize("when", ["setup", "call"])
def test_failure_is_saved(tmp_path: Path, made: list[FakeFlightRecorder], when: str) -> None:
    """Below the root, where version control does not look; the report says where."""
    told = report(recorder(tmp_path, "bed"), when)
    folder = tmp_path / ".testbed/flight/a.py--test"
    assert told.user_properties == [("testbed_flight_recorder", str(folder))]
    ((title, text),) = told.sections
    assert title == "testbed flight recorder"
    assert text.splitlines()[0] == str(folder)
    assert f"a.py::test failed ({when}) on testbed bed" in (folder / "summary.txt").read_text()
    assert (tmp_path / ".testbed/.gitignore").read_text() == "*\n"
    assert made[0].containers == {"node1": "bed-node1", "tor": "bed-tor"}


def test_several_testbeds_have_a_folder_each(
    tmp_path: Path, made: list[FakeFlightRecorder]
) -> None:
    """Node names may be the same."""
    report(recorder(tmp_path, "one", "two", **{"--flight-dir": str(tmp_path / "chosen")}))
    assert {path.name for path in (tmp_path / "chosen/a.py--test").iterdir()} == {"one", "two"}
    assert not (tmp_path / ".testbed").exists()


def test_nothing_is_saved_without_need(tmp_path: Path, made: list[FakeFlightRecorder]) -> None:
    """A test that passed, a teardown that failed, and a test without a testbed."""
    plugin = recorder(tmp_path, "bed")
    assert not report(plugin, failed=False).sections
    assert not report(plugin, "teardown").sections
    assert not report(recorder(tmp_path)).sections
    assert not [*tmp_path.iterdir()]


def test_error_of_the_recorder_is_a_line_of_the_report(
    tmp_path: Path, made: list[FakeFlightRecorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is."""
    monkeypatch.setattr(FakeFlightRecorder, "error", ZeroDivisionError("oh"))
    told = report(recorder(tmp_path, "bed"))
    ((_, text),) = told.sections
    assert "could not be saved: ZeroDivisionError('oh')" in text
    assert not told.user_properties  # there is nothing to link to


def test_turned_off(tmp_path: Path, made: list[FakeFlightRecorder]) -> None:
    """Nothing is even begun."""
    assert not report(recorder(tmp_path, "bed", **{"--no-flight-recorder": True})).sections
    assert not made


def test_begun_once_and_stopped(tmp_path: Path, made: list[FakeFlightRecorder]) -> None:
    """A testbed that several fixtures use is watched once; whoever ends it may say so twice."""
    plugin = recorder(tmp_path, "one", "one", "two")
    plugin.unwatch("one")
    plugin.unwatch("one")
    plugin.pytest_sessionfinish()
    assert [fake.said for fake in made] == [["start", "wait", "stop"]] * 2


def test_a_chosen_folder_is_where_pytest_was_started(
    tmp_path: Path, made: list[FakeFlightRecorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the failed test has changed the directory."""
    monkeypatch.chdir(tmp_path)
    plugin = recorder(tmp_path, "bed", **{"--flight-dir": "chosen"})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    report(plugin)
    assert (tmp_path / "chosen/a.py--test/summary.txt").exists()
