"""``testbed capture`` without an engine: its options, and what ends it."""

from __future__ import annotations

import signal
from typing import Any, cast

import pytest

from testbed.cli.main import parser
from testbed.cli.verbs.capture import _ending, run
from testbed.errors import UsageError


class Asked:
    """A recording that notes whether it was asked to stop."""

    def __init__(self) -> None:
        self.stopping = 0

    def ask_to_stop(self) -> None:
        """Noted."""
        self.stopping += 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_once(number: signal.Signals) -> None:
    """The second one does what it did before."""
    asked = Asked()
    before = signal.signal(number, lambda *_: None)
    try:
        with _ending(cast(Any, asked), None):
            for _ in range(2):
                signal.raise_signal(number)
        assert asked.stopping == 1
    finally:
        signal.signal(number, before)


def test_what_is_ignored_stays_ignored() -> None:
    """As with ``nohup testbed capture``."""
    asked = Asked()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _ending(cast(Any, asked), None):
            signal.raise_signal(signal.SIGHUP)
        assert asked.stopping == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", ["0", "-1", "1_0", "9" * 5000, "²", "x"])
@pytest.mark.parametrize("option", ["--count", "--snaplen"])
def test_numbers_that_are_none(option: str, number: str) -> None:
    """Said before anything is asked of an engine."""
    if (option, number) == ("--snaplen", "0"):
        number = str(1 << 18)
    args = parser().parse_args(["capture", f"{option}={number}"])
    with pytest.raises(UsageError, match=rf"^{option} .{{0,20}}: it is a number from "):
        run(args, cast(Any, None))
