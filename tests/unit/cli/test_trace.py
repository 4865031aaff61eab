"""``testbed trace``: its arguments, its exit codes, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from testbed import existing, tracing
from testbed.cli.main import main
from testbed.node import engine
from testbed.verify.trace.diagnosis import CAUSES
from testbed.verify.trace.model import Trace
from tests.unit.verify.trace import traces


class Tracer:
    """Stands in for a testbed: notes what is asked, and answers with a trace that is there."""

    def __init__(self) -> None:
        self.found: Trace = traces.answered()
        self.asked: dict[str, Any] = {}

    def trace(
        self, _client: object, name: str, source: str, target: str, **probe: object
    ) -> tuple[Trace, bytes]:
        """As :func:`testbed.tracing.trace`."""
        self.asked = {"name": name, "source": source, "target": target, **probe}
        return self.found, b"frames"


@pytest.fixture
def tracer(monkeypatch: pytest.MonkeyPatch) -> Tracer:
    """A tracer in the place of the engine."""
    made = Tracer()
    monkeypatch.setattr(engine, "connect", lambda: None)
    monkeypatch.setattr(existing, "choose", lambda _client, name: name or "flannel")
    monkeypatch.setattr(tracing, "trace", made.trace)
    return made


def run(*words: str) -> int:
    """The exit code of ``testbed trace WORDS``."""
    with pytest.raises(SystemExit) as caught:
        main(["trace", *words])
    return int(caught.value.code or 0)


def test_the_probe_is_an_echo_of_56_bytes(tracer: Tracer) -> None:
    """Unless something else is asked for."""
    assert run("a", "b") == 0
    assert tracer.asked == {
        "name": "flannel",
        "source": "a",
        "target": "b",
        "protocol": "icmp",
        "port": 0,
        "size": 56,
        "dont_fragment": False,
    }


@pytest.mark.parametrize(
    ("words", "port", "size"),
    [
        (["--proto", "tcp"], 8080, 0),
        (["--proto", "udp"], 8081, 56),
        (["--proto", "udp", "--port", "53", "--size", "0"], 53, 0),
        (["--size", "65507", "--df"], 0, 65507),
    ],
)
def test_ports_and_sizes(tracer: Tracer, words: list[str], port: int, size: int) -> None:
    """Those of netexec, or those that are given."""
    run("a", "b", *words)
    assert (tracer.asked["port"], tracer.asked["size"]) == (port, size)
    assert tracer.asked["dont_fragment"] is ("--df" in words)


@pytest.mark.parametrize(
    ("words", "protocol", "port"),
    [
        ([], None, None),
        (["--port", "90"], None, 90),
        (["--proto", "udp"], "udp", None),
        (["--proto", "icmp"], "icmp", None),
        (["--proto", "tcp", "--port", "81"], "tcp", 81),
    ],
)
def test_a_service_says_what_is_not_said(
    tracer: Tracer, words: list[str], protocol: str | None, port: int | None
) -> None:
    """Its protocol and its port are the defaults, and not netexec's."""
    for target in ("svc/web", "service/shop/web", "10.96.0.9"):
        assert run("a", target, *words) == 0
        assert (tracer.asked["protocol"], tracer.asked["port"]) == (protocol, port)


def test_every_wrong_value_is_named_at_once(
    tracer: Tracer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is sent."""
    words = ["--proto", "sctp", "--port", "65536", "--size", "-1"]
    files = ["--pcap", "", "--svg", str(tmp_path), "--html", f"{tmp_path}/none/walk.html"]
    assert run("a", "b", *words, *files) == 2
    assert capsys.readouterr().err == (
        "error: --proto sctp: it is icmp, tcp or udp\n"
        "--port 65536: it is a number from 1 to 65535\n"
        "--size -1: it is a number from 0 to 65507\n"
        "--pcap is empty: it is a file to write\n"
        f"--svg {tmp_path}: it is a file to write\n"
        f"--html {tmp_path}/none/walk.html: there is no directory {tmp_path}/none\n"
    )
    assert not tracer.asked


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--port", "80"], "ICMP has no ports"),
        (["--proto", "tcp", "--size", "10"], "it is for icmp and udp"),
        (["--proto", "tcp", "--port", "0"], "a number from 1 to 65535"),
        (["--proto", "tcp", "--port", "٣"], "a number from 1 to 65535"),
        (["--size", "1" * 5000], "a number from 0 to 65507"),
        (["--size", "65508"], "a number from 0 to 65507"),
    ],
)
def test_values_that_do_not_fit(
    tracer: Tracer, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is refused with its reason."""
    assert run("a", "b", *words) == 2
    assert told in capsys.readouterr().err
    assert not tracer.asked


@pytest.mark.parametrize("output", ["text", "json"])
@pytest.mark.parametrize(
    ("trace", "code"),
    [(traces.answered(), 0), (traces.dropped(), 1), (traces.astray(), 1)],
    ids=["answered", "dropped", "astray"],
)
def test_the_exit_code_says_whether_it_went_as_it_must(
    tracer: Tracer, trace: Trace, code: int, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An answer that came another way is not as it must be."""
    tracer.found = trace
    assert run("a", "b", "-o", output) == code
    if output == "json":
        assert json.loads(capsys.readouterr().out)["ok"] is (code == 0)


def test_files_are_written(tracer: Tracer, tmp_path: Path) -> None:
    """All three, besides the text."""
    names = {option: tmp_path / f"walk.{option}" for option in ("pcap", "svg", "html")}
    assert run("a", "b", *(f"--{option}={path}" for option, path in names.items())) == 0
    assert names["pcap"].read_bytes() == b"frames"
    assert names["svg"].read_text().startswith("<svg ")
    assert names["html"].read_text().startswith("<!DOCTYPE html>")


def test_a_file_that_cannot_be_written_is_an_error(
    tracer: Tracer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said with the system's reason, after the text."""
    path = f"/proc/self/none-{tmp_path.name}"
    assert run("a", "b", "--pcap", path) == 1
    said = capsys.readouterr()
    assert "answered in" in said.out
    assert f"error: --pcap {path}: " in said.err


def test_every_cause_is_documented() -> None:
    """``docs/trace.md`` has them all, in the words of the code."""
    page = (Path(__file__).parents[3] / "docs" / "trace.md").read_text()
    for cause, meaning in CAUSES.items():
        assert f"| `{cause}` | {meaning} |" in page
