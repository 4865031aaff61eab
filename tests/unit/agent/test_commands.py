"""The commands that are run on a node: exec, logs, status and their arguments."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.agent import execute, logs, main, podlogs, state, target
from testbed.agent.errors import AgentError
from testbed.agent.target import MissingError, Target, find
from tests.unit.agent.fakes import pod_spec

NODE: dict[str, Any] = {
    "pods": [
        {
            "namespace": "default",
            "name": "web",
            "uid": "u1",
            "error": None,
            "containers": [
                {"name": "app", "id": "c1", "state": "Running", "reason": ""},
                {"name": "side", "id": "c2", "state": "Waiting", "reason": "CrashLoopBackOff"},
            ],
        }
    ]
}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node with one pod whose state, logs and containers are in a directory."""
    path = tmp_path / "state.json"
    state.write(NODE, str(path))
    monkeypatch.setattr(state, "read", lambda: json.loads(path.read_text()))
    monkeypatch.setattr(podlogs, "PODS", str(tmp_path / "logs"))
    monkeypatch.setattr(execute, "CONTAINERS", str(tmp_path))
    for name in ("c1", "c2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"process": {"cwd": "/tmp"}}')
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web", Target("default", "web", "")),
        ("ns/web", Target("ns", "web", "")),
        ("ns/web:app", Target("ns", "web", "app")),
        ("web:app", Target("default", "web", "app")),
    ],
)
def test_names(text: str, expected: Target) -> None:
    """Namespace and container may be left out."""
    assert target.parse(text) == expected


def test_the_first_container_is_the_default() -> None:
    """As kubectl does it."""
    assert find("web", NODE)[1]["name"] == "app"
    assert find("web:side", NODE)[1]["name"] == "side"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "x: no pod default/x: the node has default/web"),
        ("ns/web", "ns/web: no pod ns/web: the node has default/web"),
        ("web:x", "web:x: no container 'x': the pod has app, side"),
    ],
)
def test_missing_targets_list_what_exists(text: str, message: str) -> None:
    """The message helps."""
    with pytest.raises(MissingError) as caught:
        find(text, NODE)
    assert str(caught.value) == message
    with pytest.raises(MissingError, match="the node has no pods"):
        find(text, {"pods": []})


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["web", "--", "ls", "-l"], (False, "web", ["ls", "-l"])),
        (["--tty", "web", "--", "sh"], (True, "web", ["sh"])),
        (["web", "ls"], (False, "web", ["ls"])),
        (["web", "--"], None),
        (["web"], None),
        (["web", "-l"], None),
        (["--what", "web", "--", "sh"], None),
        ([], None),
    ],
)
def test_arguments_of_exec(argv: list[str], expected: object) -> None:
    """A command is needed."""
    assert execute.arguments(argv) == expected


def test_exec_becomes_crun(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the container's working directory."""
    calls: list[list[str]] = []
    monkeypatch.setattr("os.execvp", lambda _, argv: calls.append(argv))
    execute.main(["--tty", "web", "--", "sh"])
    prefix = ["crun", "--cgroup-manager=disabled", "exec"]
    assert calls == [[*prefix, "--tty", "--env=TERM=xterm", "--cwd=/tmp", "c1", "sh"]]


def test_exec_of_what_is_not_there(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, and 1 when it does not run."""
    assert main.main(["exec", "nope", "--", "true"]) == 2
    assert "the node has default/web" in capsys.readouterr().err
    assert main.main(["exec", "web:side", "--", "true"]) == 1
    assert "container side is Waiting: CrashLoopBackOff" in capsys.readouterr().err
    assert main.main(["exec"]) == 2
    assert capsys.readouterr().err.startswith("usage: testbed-agent exec")


def test_without_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent has not booted."""
    monkeypatch.setattr(state, "read", lambda: None)
    with pytest.raises(AgentError, match="the node has no state yet"):
        target.resolve("web")


def write_log(name: str, run: int, text: str) -> Path:
    """Write what a run of a container printed."""
    path = Path(podlogs.open_run(NODE["pods"][0], name, run))
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("lines", "expected"),
    [([], "1\n2\n3"), (["--tail", "2"], "2\n3"), (["--tail=0"], ""), (["--tail", "9"], "1\n2\n3")],
)
def test_logs_of_the_latest_run(
    node: Path, capfdbinary: pytest.CaptureFixture[bytes], lines: list[str], expected: str
) -> None:
    """All of it, or its last lines; numbers are compared as numbers."""
    write_log("app", 9, "old\n")
    write_log("app", 10, "1\n2\n3")
    assert main.main(["logs", "web", *lines]) == 0
    assert capfdbinary.readouterr().out.decode() == expected


def test_tail_of_a_long_log(node: Path) -> None:
    """Blocks are read from the end."""
    path = write_log("app", 0, "".join(f"{number:09}\n" for number in range(20000)))
    assert logs.tail(path, 3) == 200000 - 30
    assert logs.tail(path, 15000) == 50000


def test_only_the_run_before_is_kept(node: Path) -> None:
    """As kubelet does."""
    paths = [write_log("app", run, "x") for run in range(3)]
    assert [path.exists() for path in paths] == [False, True, True]


def test_no_logs_yet(node: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Nothing is printed."""
    assert main.main(["logs", "web:side"]) == 0
    assert capfdbinary.readouterr().out == b""


@pytest.mark.parametrize(
    "argv", [[], ["web", "--tail"], ["web", "--tail", "x"], ["web", "x"], ["web", "--what"]]
)
def test_bad_arguments_of_logs(argv: list[str]) -> None:
    """Usage errors."""
    assert logs.arguments(argv) is None


def test_logs_of_what_is_not_there(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2."""
    assert main.main(["logs", "nope"]) == 2
    assert "the node has default/web" in capsys.readouterr().err
    assert main.main(["logs"]) == 2


def test_following_goes_on_with_the_next_run(
    node: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is appended comes, then the next run's log from its beginning."""
    first = write_log("app", 0, "a\n")
    steps: Iterator[Callable[[], object]] = iter(
        [lambda: first.write_text("a\nb\n"), lambda: write_log("app", 1, "c\n")]
    )

    def sleep(_: float) -> None:
        try:
            next(steps)()
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(time, "sleep", sleep)
    assert main.main(["logs", "--follow", "web"]) == 130
    assert capfdbinary.readouterr().out == b"a\nb\nc\n"


@pytest.mark.parametrize("argv", [[], ["frob"], ["sync"], ["status", "x"], ["check", "x"]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2 and the usage on stderr."""
    assert main.main(argv) == 2
    assert "usage: testbed-agent init" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout, with success."""
    assert main.main(["--help"]) == 0
    assert "exec [--tty]" in capsys.readouterr().out


def test_state_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Readers see the old or the new state; another version is none."""
    path = str(tmp_path / "state.json")
    stop = threading.Event()
    seen: list[Any] = []

    def read() -> None:
        while not stop.is_set():
            seen.append(state.read(path))

    state.write({"pods": []}, path)
    reader = threading.Thread(target=read)
    reader.start()
    for number in range(50):
        state.write({"pods": [number] * 1000}, path)
    stop.set()
    reader.join()
    assert None not in seen
    (tmp_path / "state.json").write_text('{"version": 2}')
    assert state.read(path) is None
    assert state.read(str(tmp_path / "none")) is None


def test_known_pods_of_a_previous_boot() -> None:
    """Entries of another shape are left out."""
    good = {"namespace": "d", "name": "a", "containers": [{"name": "c", "restarts": 0}]}
    known = state.known_pods({"pods": [good, {"name": "x"}, {**good, "containers": [{}]}]})
    assert known == {"d/a": good}
    assert state.known_pods(None) == {}


def test_pod_logs_are_where_kubelet_has_them() -> None:
    """Namespace, name and uid."""
    place = podlogs.container_directory(pod_spec("web"), "app")
    assert place == Path(podlogs.PODS, "default_web_uid-web", "app")
