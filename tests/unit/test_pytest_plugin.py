"""The pytest plugin: which tests share a testbed, when it goes, and what a failure tells."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from testbed.api import shared
from testbed.errors import NodeError
from testbed.packets import explanations
from testbed.topology.model import Cluster

pytest_plugins = ["pytester"]


class FakeUse:
    """A testbed that costs nothing; what becomes of it is remembered."""

    said: list[str]

    def __init__(self, cluster: Cluster, reuse: bool, keep: bool) -> None:
        self.name = f"{cluster.name}-{len(cluster.nodes)}"
        self.reuse = reuse
        self.keep = keep
        self.failed = False

    @property
    def stays(self) -> bool:
        """As the real one's."""
        return self.reuse or (self.keep and self.failed)

    @contextmanager
    def __call__(self) -> Iterator[SimpleNamespace]:
        """It is up at once."""
        self.said.append(f"up {self.name}")
        try:
            yield SimpleNamespace(name=self.name, nodes={}, pods={}, capture=print)
        finally:
            self.said.append(f"{'keep' if self.stays else 'down'} {self.name}")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What becomes of testbeds."""
    monkeypatch.setattr(FakeUse, "said", [], raising=False)
    monkeypatch.setattr(shared, "Use", FakeUse)
    return FakeUse.said


def run(pytester: pytest.Pytester, code: str, *options: str, ini: str = "") -> pytest.RunResult:
    """Run a test file as a user would, without the flight recorder."""
    imported = "ignore::pytest.PytestAssertRewriteWarning"  # because this is the same process
    pytester.makeini(f"[pytest]\nfilterwarnings =\n    error\n    {imported}\n{ini}\n")
    pytester.makepyfile(f"import pytest\nfrom testbed.packets import explanations\n{code}")
    fixed = ("--no-flight-recorder", "--strict-markers", "-p", "no:cacheprovider")
    return pytester.runpytest_inprocess(*fixed, *options, no_reraise_ctrlc=True)


INTERLEAVED = """
two = pytest.mark.testbed("flannel", nodes=2)

@two
def test_a(nodes): pass
def test_plain(): pass
def test_b(testbed): assert testbed.name == "flannel-3"
@two
def test_c(testbed, pods, capture): assert testbed.name == "flannel-2"
@pytest.mark.testbed("compose/mine.yaml")
def test_d(testbed): assert testbed.name == "mine-3"
def test_e(testbed): pass
"""


def test_tests_of_one_topology_share_a_testbed(pytester: pytest.Pytester, said: list[str]) -> None:
    """They run one after another, whatever their order; a path is below pytest's root."""
    from testbed.topology.load import find

    text = find("flannel").read_text().replace("name: flannel", "name: mine")
    pytester.mkdir("compose").joinpath("mine.yaml").write_text(text)
    result = run(pytester, INTERLEAVED, "-v", ini="testbed_topology = flannel")
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(
        [f"*::test{name} *" for name in ("_a?flannel,nodes=2?", "_c?*", "_b", "_e", "_d?mine?")]
    )
    assert said == [
        *("up flannel-2", "down flannel-2"),
        *("up flannel-3", "down flannel-3"),
        *("up mine-3", "down mine-3"),
    ]


def test_the_configuration_s_path_is_relative_to_it(
    pytester: pytest.Pytester, said: list[str]
) -> None:
    """As pytest's own, also where the root is another directory."""
    from testbed.topology.load import find

    pytester.mkdir("here").joinpath("mine.yaml").write_text(find("flannel").read_text())
    pytester.mkdir("root")
    pytester.path.joinpath("here/pytest.ini").write_text("[pytest]\ntestbed_topology = mine.yaml\n")
    code = "def test_a(testbed): assert testbed.name == 'mine-3'"
    run(pytester, code, "-c", "here/pytest.ini", "--rootdir", "root").assert_outcomes(passed=1)


def test_one_topology_changes_no_order(pytester: pytest.Pytester, said: list[str]) -> None:
    """Fixtures of modules and classes rely on it."""
    code = (
        "def test_z(): pass\ndef test_b(nodes): pass\ndef test_c(): pass\ndef test_a(nodes): pass"
    )
    result = run(pytester, code, "-v", ini="testbed_topology = flannel")
    result.stdout.fnmatch_lines(["*test_z *", "*test_b *", "*test_c *", "*test_a *"])
    assert said == ["up flannel-3", "down flannel-3"]


def test_the_closest_marker_counts(pytester: pytest.Pytester, said: list[str]) -> None:
    """A function's before its class's before its module's."""
    code = """
pytestmark = pytest.mark.testbed("flannel", nodes=1)

@pytest.mark.testbed("flannel", nodes=2)
class TestIt:
    def test_a(self, testbed): assert testbed.name == "flannel-2"
    @pytest.mark.testbed("flannel", nodes=3)
    def test_b(self, testbed): assert testbed.name == "flannel-3"
def test_c(testbed): assert testbed.name == "flannel-1"
"""
    run(pytester, code).assert_outcomes(passed=3)
    assert len(said) == 6


def test_the_topology_can_be_a_parameter(pytester: pytest.Pytester, said: list[str]) -> None:
    """The same tests on several topologies."""
    code = """
@pytest.mark.parametrize("testbed", ["flannel", "kindnet"], indirect=True, scope="session")
class TestIt:
    def test_a(self, testbed): pass
    def test_b(self, pods): pass
"""
    run(pytester, code).assert_outcomes(passed=4)
    assert said == ["up flannel-3", "down flannel-3", "up kindnet-3", "down kindnet-3"]


def test_the_default_can_be_a_parameter(pytester: pytest.Pytester, said: list[str]) -> None:
    """As ``None``, also where the module has a marker."""
    code = """
pytestmark = pytest.mark.testbed("flannel", nodes=1)
@pytest.mark.parametrize("testbed", [None, "flannel"], indirect=True, scope="session")
def test_a(testbed): pass
"""
    run(pytester, code, ini="testbed_topology = kindnet").assert_outcomes(passed=2)
    assert said == ["up kindnet-3", "down kindnet-3", "up flannel-3", "down flannel-3"]


def test_without_a_topology_it_says_how_to_give_one(
    pytester: pytest.Pytester, said: list[str]
) -> None:
    """Without a traceback."""
    result = run(pytester, "def test_a(testbed): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["which topology? Mark the test, as in *"])
    assert not said


def test_a_marker_without_a_topology_is_an_error(
    pytester: pytest.Pytester, said: list[str]
) -> None:
    """Of the collection."""
    result = run(pytester, "@pytest.mark.testbed(nodes=2)\ndef test_a(testbed): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the marker takes one topology: testbed(topology, *"])
    assert not said


def test_a_wrong_topology_fails_the_test(pytester: pytest.Pytester, said: list[str]) -> None:
    """In the loader's words."""
    result = run(pytester, "@pytest.mark.testbed('flanel')\ndef test_a(testbed): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*there is no file and no topology*flannel*"])
    assert not said


FAILING = """
@pytest.mark.testbed("flannel", nodes=1)
def test_a(testbed): pass
@pytest.mark.testbed("flannel", nodes=2)
def test_b(testbed):
    explanations.note(lambda: "a table of packets")
    assert not testbed
"""


def test_it_is_removed_although_a_test_failed(pytester: pytest.Pytester, said: list[str]) -> None:
    """By default."""
    run(pytester, FAILING).assert_outcomes(passed=1, failed=1)
    assert said == ["up flannel-1", "down flannel-1", "up flannel-2", "down flannel-2"]


def test_it_is_kept_if_asked_to(pytester: pytest.Pytester, said: list[str]) -> None:
    """But only the one that the failed test used; the test's report and the end say so."""
    result = run(pytester, FAILING, "--testbed-keep")
    assert said == ["up flannel-1", "down flannel-1", "up flannel-2", "keep flannel-2"]
    left = "testbed flannel-2 was left running: *`testbed down flannel-2` to remove it"
    result.stdout.fnmatch_lines(["*- testbed -*", "a table of packets", left, left])


def test_a_failure_of_a_test_without_testbed_keeps_nothing(
    pytester: pytest.Pytester, said: list[str]
) -> None:
    """Although one is up meanwhile."""
    code = """
@pytest.mark.testbed("flannel", nodes=1)
def test_a(testbed): pass
def test_b(): assert False
"""
    run(pytester, code, "--testbed-keep").assert_outcomes(passed=1, failed=1)
    assert said == ["up flannel-1", "down flannel-1"]


def test_reuse_leaves_it_and_says_nothing(pytester: pytest.Pytester, said: list[str]) -> None:
    """It was there before."""
    result = run(pytester, FAILING, "--testbed-reuse", "--testbed-keep")
    assert said == ["up flannel-1", "keep flannel-1", "up flannel-2", "keep flannel-2"]
    result.stdout.no_fnmatch_line("*was left running*")


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "pytest.exit.Exception"])
def test_it_is_removed_when_pytest_is_interrupted(
    pytester: pytest.Pytester, said: list[str], error: str
) -> None:
    """Ctrl-C in the middle of a test."""
    code = f"@pytest.mark.testbed('flannel')\ndef test_a(testbed): raise {error}\n"
    run(pytester, code)
    assert said == ["up flannel-3", "down flannel-3"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_it_is_removed_when_pytest_is_terminated(
    pytester: pytest.Pytester, said: list[str], name: str
) -> None:
    """It ends like Ctrl-C; afterwards the signal is handled as before."""
    number = signal.Signals[name]
    before = signal.signal(number, signal.SIG_DFL)
    code = f"""
import os, signal
@pytest.mark.testbed("flannel")
def test_a(testbed): os.kill(os.getpid(), signal.{name})
"""
    result = run(pytester, code)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert said == ["up flannel-3", "down flannel-3"]
    assert signal.signal(number, before) is signal.SIG_DFL


def test_explanations_are_of_the_failed_test(pytester: pytest.Pytester) -> None:
    """Those of the test before are forgotten; errors that are no assertions need none."""
    code = """
def test_a(): explanations.note(lambda: "of a")
def test_b(): assert False
def test_c():
    explanations.note(lambda: "of c")
    raise ValueError
def test_d():
    explanations.note(lambda: "of d")
    assert False
"""
    result = run(pytester, code)
    result.stdout.no_fnmatch_line("of a")
    result.stdout.no_fnmatch_line("of c")
    result.stdout.fnmatch_lines(["*- testbed -*", "of d"])
    explanations.clear()


def test_an_explanation_that_fails_hides_nothing(pytester: pytest.Pytester) -> None:
    """The test's own failure is reported, and that there is no explanation."""
    code = "def test_a():\n    explanations.note(lambda: 1 / 0)\n    assert 'this' == 'that'"
    result = run(pytester, code)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*'this' == 'that'*", "no explanation: division by zero"])
    explanations.clear()


def test_a_marker_takes_paths(pytester: pytest.Pytester, said: list[str]) -> None:
    """As the API does; so does a parameter, which counts for its test more than a marker."""
    code = """
from pathlib import Path
from testbed.topology.load import find
pytestmark = pytest.mark.testbed(find("kindnet"))
def test_a(testbed): assert testbed.name == "kindnet-3"
@pytest.mark.parametrize("x, testbed", [(1, find("flannel"))], indirect=["testbed"])
def test_b(testbed, x): assert testbed.name == "flannel-3"
"""
    run(pytester, code).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "@pytest.mark.testbed('flannel', nodes=[2])\ndef test_a(testbed): pass",
            "*the marker takes one topology*",
        ),
        (
            "@pytest.mark.testbed('flannel', nodes='2')\ndef test_a(testbed): pass",
            "nodes='2': use a number",
        ),
        (
            "@pytest.mark.parametrize('testbed', [3], indirect=True)\ndef test_a(testbed): pass",
            "3 is no topology: give a name or a path",
        ),
        (
            "import unittest\n@pytest.mark.testbed('kindnet')\n"
            "@pytest.mark.usefixtures('testbed')\n"
            "class TestIt(unittest.TestCase):\n    def test_a(self): pass",
            "the marker testbed has no effect here: *unittest.TestCase*",
        ),
        (
            "@pytest.mark.testbed('kindnet')\n"
            "def test_a(request): request.getfixturevalue('nodes')",
            "the marker testbed has no effect on request.getfixturevalue*",
        ),
    ],
)
def test_a_test_never_gets_another_topology_than_it_asks_for(
    pytester: pytest.Pytester, said: list[str], code: str, words: str
) -> None:
    """It is told what to write instead, without a traceback."""
    result = run(pytester, code, ini="testbed_topology = flannel")
    assert result.ret in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
    result.stdout.fnmatch_lines([words])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")
    assert not said


BROKEN = {
    "error": lambda: NodeError("no Docker"),
    "errors": lambda: ExceptionGroup("x", [NodeError("no Docker"), NodeError("y")]),
    "check": lambda: shared.NotAsPlannedError("no Docker"),
}


@pytest.mark.parametrize("error", BROKEN.values(), ids=BROKEN)
def test_a_testbed_that_does_not_come_up_is_told_without_a_traceback(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    said: list[str],
    error: Callable[[], Exception],
) -> None:
    """In testbed's own words, once, and whether something was left."""

    @contextmanager
    def broken(self: FakeUse) -> Iterator[SimpleNamespace]:
        self.failed = True
        raise error()
        yield

    monkeypatch.setattr(FakeUse, "__call__", broken)
    code = "def test_a(testbed): pass"
    result = run(pytester, code, "--testbed-keep", ini="testbed_topology = flannel")
    result.assert_outcomes(errors=1)
    left = "testbed flannel-3 was left running: *"
    result.stdout.fnmatch_lines(["_* ERROR at setup of test_a _*", "no Docker", left, left])
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_a_fault_of_testbed_s_own_keeps_its_traceback(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """Because it is to be reported."""
    monkeypatch.setattr(FakeUse, "__call__", lambda _: 1 / 0)
    result = run(pytester, "def test_a(testbed): pass", ini="testbed_topology = flannel")
    result.stdout.fnmatch_lines(["*pytest_plugin.py*", "*ZeroDivisionError*"])
