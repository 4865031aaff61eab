"""The file name is the registry: every module in a registry folder offers what it must."""

from __future__ import annotations

import inspect
from dataclasses import fields
from importlib import import_module

import pytest

from testbed.cli.main import VERBS
from testbed.dataplane.features import Features
from testbed.dataplane.spec import KernelObject
from testbed.plan import CniPlanner, ProxyPlanner, cnis, proxies
from testbed.topology.cnis import Traits
from testbed.topology.load import PROXIES


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


@pytest.mark.parametrize("name", [name for name in proxies() if name != "none"])
def test_every_proxy_mode_is_a_planner(name: str) -> None:
    """What it requires, sets and makes, and the functions of the Protocol with its parameters."""
    module = import_module(f"testbed.proxy.{name}")
    for function in ("dispatch", "service"):
        wanted = list(inspect.signature(getattr(ProxyPlanner, function)).parameters)[1:]
        assert list(inspect.signature(getattr(module, function)).parameters) == wanted
    assert {field.name for field in fields(Features)} >= module.REQUIRES
    assert all(isinstance(key, str) and value for key, value in module.SYSCTLS.items())
    assert all(isinstance(each, KernelObject) for each in module.OBJECTS)


def test_a_topology_may_name_every_proxy_mode() -> None:
    """Also where the loader is not told which there are."""
    assert proxies() == PROXIES


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_whole(name: str) -> None:
    """Help, examples, arguments, and what it runs."""
    module = import_module(f"testbed.cli.verbs.{name}")
    assert module.HELP
    assert module.EXAMPLE
    assert list(inspect.signature(module.arguments).parameters) == ["parser"]
    assert list(inspect.signature(module.run).parameters) == ["args", "console"]
