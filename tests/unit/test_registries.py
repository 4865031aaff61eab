"""The file name is the registry: every module in a registry folder offers what it must."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

from testbed.cli.main import VERBS
from testbed.plan import CniPlanner, cnis
from testbed.topology.cnis import Traits


@pytest.mark.parametrize("name", cnis())
def test_every_cni_is_a_planner(name: str) -> None:
    """The same functions with the same parameters as the Protocol says, and its backends."""
    module = import_module(f"testbed.cni.{name}")
    for function in ("plan", "requires"):
        wanted = list(inspect.signature(getattr(CniPlanner, function)).parameters)[1:]
        assert list(inspect.signature(getattr(module, function)).parameters) == wanted
    traits = module.TRAITS
    assert isinstance(traits, Traits)
    for options in traits.backends.values():
        assert all(kind in (int, bool, str) or isinstance(kind, tuple) for kind in options.values())
    assert traits.tunnels | traits.routed <= traits.backends.keys()


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_whole(name: str) -> None:
    """Help, examples, arguments, and what it runs."""
    module = import_module(f"testbed.cli.verbs.{name}")
    assert module.HELP
    assert module.EXAMPLE
    assert list(inspect.signature(module.arguments).parameters) == ["parser"]
    assert list(inspect.signature(module.run).parameters) == ["args", "console"]
