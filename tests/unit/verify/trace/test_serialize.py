"""A trace as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.packets.packet import Packet
from testbed.verify.oracle import Ipip, Wireguard
from testbed.verify.trace.serialize import to_json
from tests.unit.verify.trace import traces

GOLDEN = Path(__file__).parents[3] / "golden" / "trace"


def test_json_is_golden(golden: Callable[[Path, str], None]) -> None:
    """Scripts rely on these keys."""
    found = traces.too_large()
    short = replace(
        found,
        request=replace(found.request, observed=found.request.observed[-1:]),
        reply=replace(found.reply, expected=found.reply.expected[4:5]),
    )
    golden(GOLDEN / "too_large.json", json.dumps(to_json(short), indent=2) + "\n")


def test_json_of_a_service_is_golden(golden: Callable[[Path, str], None]) -> None:
    """What it is, which endpoints it has, and which one was chosen; the conntrack entry."""
    value = to_json(traces.translated())
    kept = {name: value[name] for name in ("target", "service", "conntrack")}
    golden(GOLDEN / "translated.json", json.dumps(kept, indent=2) + "\n")


@pytest.mark.parametrize("name", traces.__all__)
def test_keys_do_not_depend_on_what_happened(name: str) -> None:
    """What is not known is null or empty."""
    value = json.loads(json.dumps(to_json(getattr(traces, name)())))
    assert list(value) == list(to_json(traces.answered()))
    for leg in (value["request"], value["reply"]):
        assert list(leg) == ["complete", "divergence", "expected", "observed"]
        for hop in leg["observed"]:
            assert list(hop["packet"]) == list(
                to_json(traces.answered())["request"]["observed"][0]["packet"]
            )


def test_carriers_hold_what_they_carry() -> None:
    """Outer headers outside, the pods' packet as ``inner``."""
    hop = to_json(traces.answered())["request"]["observed"][4]
    outer = hop["packet"]
    assert (outer["source"], outer["vni"], outer["destination_port"]) == ("172.18.0.2", 1, 8472)
    assert outer["inner"]["destination"] == "10.244.1.2"
    assert outer["inner"]["inner"] is None
    assert outer["inner"]["payload_length"] == 56


def test_every_field_of_a_packet_is_told() -> None:
    """But the payload itself, and what the hop says already."""
    value = to_json(traces.answered())["request"]["observed"][0]["packet"]
    elsewhere = {"payload", "time_ns", "interface", "direction"}
    assert set(Packet._fields) - set(value) == elsewhere


@pytest.mark.parametrize(
    ("how", "value"),
    [
        (Ipip(), {"type": "ipip", "vni": None, "port": None}),
        (Wireguard(51820), {"type": "wireguard", "vni": None, "port": 51820}),
        (None, None),
    ],
)
def test_encapsulations(how: Ipip | Wireguard | None, value: object) -> None:
    """Each with the same keys."""
    trace = traces.answered()
    hop = replace(trace.request.expected[0], encapsulation=how)
    told = to_json(replace(trace, request=replace(trace.request, expected=(hop,))))
    assert told["request"]["expected"][0]["encapsulation"] == value
