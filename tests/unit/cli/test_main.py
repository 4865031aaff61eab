"""The command line without an engine: help, exit codes, messages, plans."""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from testbed.cli.main import VERBS, main, parser

VERB_FILES = Path(__file__).parents[3] / "testbed" / "cli" / "verbs"


@dataclass(frozen=True)
class Done:
    """What a command line left behind."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run command lines in this process, with no engine to be found."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")

    def call(*words: str, **environment: str) -> Done:
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        code = exit_code(*words)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return call


def exit_code(*words: str) -> int:
    """The exit code of a command line that is run in this process."""
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return int(caught.value.code or 0)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--help`` shows what it does and a command line to paste."""
    assert exit_code(verb, "--help") == 0
    text = capsys.readouterr().out
    assert f"  testbed {verb}" in text.partition("examples:")[2]


def test_every_file_is_a_verb() -> None:
    """A file in ``verbs/`` that no ``--help`` lists would be dead."""
    assert {path.stem for path in VERB_FILES.glob("*.py")} - {"__init__"} == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_examples_parse(verb: str) -> None:
    """What ``--help`` shows is accepted by the parser."""
    for line in import_module(f"testbed.cli.verbs.{verb}").EXAMPLE.splitlines():
        words = shlex.split(line.rpartition("| ")[2])
        assert words[0] == "testbed"
        parser().parse_args(words[1:])


def test_help_imports_nothing_heavy() -> None:
    """Neither the Docker SDK nor rich nor yaml is loaded to print the usage."""
    code = (
        "import sys\nfrom testbed.cli.main import parser\nparser().format_help()\n"
        "heavy = {'docker', 'rich', 'yaml', 'requests'} & set(sys.modules)\nsys.exit(str(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "set()"


@pytest.mark.parametrize(
    "words", [(), ("nope",), ("up",), ("exec", "node1"), ("down", "a", "--all")]
)
def test_wrong_usage_is_exit_code_2(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """With the usage on standard error."""
    assert exit_code(*words) == 2
    assert "usage: testbed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("up", "flannel"),
        ("down",),
        ("ls",),
        ("status",),
        ("check",),
        ("exec", "node1", "--", "true"),
        ("shell", "node1"),
        ("logs", "node1"),
        ("image", "build"),
        ("doctor",),
    ],
)
def test_without_an_engine_it_is_exit_code_3(words: tuple[str, ...], run: Run) -> None:
    """What is missing and what to do; never a traceback."""
    done = run(*words)
    assert done.returncode == 3, done.stderr
    assert "no Docker engine answers at unix:///nonexistent.sock" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_topology_is_refused_before_the_engine_is_asked(tmp_path: Path, run: Run) -> None:
    """Exit code 2, every problem with its line, though no engine answers."""
    path = tmp_path / "bad.yaml"
    path.write_text("x-testbed: {cni: flanel, clusterr: 1}\nservices: {a: {image: testbed-node}}\n")
    done = run("up", str(path))
    assert done.returncode == 2
    assert done.stderr.count(f"{path}:1: ") == 2


def test_an_unknown_topology_lists_the_shipped_ones(run: Run) -> None:
    """A name is not a file."""
    done = run("plan", "flanell")
    assert done.returncode == 2
    assert "flannel" in done.stderr


def test_plan_prints_native_files_without_an_engine(run: Run) -> None:
    """Every node's, or one node's."""
    done = run("plan", "flannel", "--node", "node2")
    assert done.returncode == 0, done.stderr
    assert "### node2:/run/flannel/subnet.env\nFLANNEL_NETWORK=10.244.0.0/16\n" in done.stdout
    assert "node1:" not in done.stdout
    assert run("plan", "flannel", "--node", "nope").returncode == 2


def test_plan_as_json_is_the_spec(run: Run) -> None:
    """The same text that boots the node."""
    done = run("plan", "flannel", "-o", "json", "--nodes", "2", "--pods-per-node", "1")
    specs = json.loads(done.stdout)
    assert [spec["node"] for spec in specs] == ["node1", "node2"]
    assert [len(spec["pods"]) for spec in specs] == [1, 1]


def test_a_driver_without_tunnels_is_refused(run: Run) -> None:
    """``--ipip`` is for topologies with IP-in-IP, and the words are checked with the topology."""
    done = run("plan", "flannel", "--ipip", "ebpf")
    assert done.returncode == 2
    assert "--ipip: backend vxlan has no IP-in-IP tunnels; remove it" in done.stderr
    done = run("plan", "flannel", "--ipip", "bpf")
    assert done.returncode == 2
    assert '--ipip: "bpf" is not supported; write auto, kernel or ebpf' in done.stderr


def test_the_name_comes_from_the_environment_too(run: Run) -> None:
    """``TESTBED_NAME`` names what ``up`` and ``plan`` make."""
    done = run("plan", "flannel", "-o", "json", TESTBED_NAME="mine")
    assert {spec["testbed"] for spec in json.loads(done.stdout)} == {"mine"}
    done = run("plan", "flannel", "-o", "json", "--name", "other", TESTBED_NAME="mine")
    assert {spec["testbed"] for spec in json.loads(done.stdout)} == {"other"}


def test_an_empty_name_is_refused(run: Run) -> None:
    """A script's unset variable must not mean the only testbed there is."""
    for words in (("down", "--name", ""), ("down", ""), ("plan", "flannel", "--name", "")):
        done = run(*words)
        assert (done.returncode, done.stderr.splitlines()[0]) == (
            2,
            "error: --name is empty: say which testbed is meant",
        )


def test_a_reader_that_goes_away_is_no_error_message() -> None:
    """``testbed plan flannel | head -1``."""
    words = [sys.executable, "-m", "testbed.cli.main", "plan", "flannel", "-o", "json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_only_the_console_imports_rich() -> None:
    """All output goes through one module."""
    for path in VERB_FILES.parent.rglob("*.py"):
        names = {
            alias.name.partition(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert "rich" not in names or path.name == "console.py"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("up", "flannel"), "interrupted. `testbed down` removes what was made so far."),
        (("apply", "-f", "web.yaml"), "interrupted. The same command completes it."),
        (("capture",), "interrupted."),
    ],
)
def test_an_interrupt_says_what_is_left(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    """Only of commands that leave something."""

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"testbed.cli.verbs.{words[0]}.run", interrupted)
    assert (done := run(*words)).returncode == 130
    assert done.stderr == f"error: {said}\n"
