"""``$(NAME)`` in a container's command, args and env values, as Kubernetes expands it.

``$$`` is a literal dollar, and a reference to an unknown name stays as it is written (kubernetes
``third_party/forked/golang/expansion``). Nothing here is a shell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["expand"]

_REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|\((?P<name>[^)]*)\))")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace the references of ``text``."""

    def replacement(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        return variables.get(match["name"], match[0])

    return _REFERENCE.sub(replacement, text)
