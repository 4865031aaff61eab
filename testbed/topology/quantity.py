"""Kubernetes resource quantities, as the bandwidth annotations use them.

`Quantities <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>`_
are decimal (``10M``) or binary (``1Gi``); the bounds of a bandwidth are those of Kubernetes'
``util/bandwidth`` package.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

from testbed.topology.source import quote

__all__ = ["bits_per_second"]

_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+))(?:[eE](?P<exponent>[+-]?\d{1,2})|(?P<unit>[A-Za-z]*))",
    re.ASCII,
)
_LOWEST, _HIGHEST = 10**3, 10**15


def bits_per_second(text: str) -> int:
    """The rate that a bandwidth annotation asks for; fractions round up.

    Raises:
        ValueError: no quantity, or not from 1k to 1P; the message says what to write.
    """
    match = _QUANTITY.fullmatch(text)
    unit = match["unit"] or "" if match else None
    if match is None or unit not in _DECIMAL | _BINARY:
        raise ValueError(
            f"{quote(text)} is not a quantity; write bits per second, as in 10M or 1Gi"
        )
    factor = Decimal(2) ** _BINARY[unit] if unit in _BINARY else Decimal(10) ** _DECIMAL[unit]
    exponent = Decimal(10) ** int(match["exponent"] or 0)
    rate = (Decimal(match["number"]) * factor * exponent).to_integral_value(ROUND_CEILING)
    if not _LOWEST <= rate <= _HIGHEST:
        raise ValueError(
            f"{quote(text)} is out of range; Kubernetes allows 1k to 1P (bits per second)"
        )
    return int(rate)
