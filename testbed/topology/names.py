"""Kubernetes' rules for names and labels, which build on RFC 1123.

See `names <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>`_.

Each check returns what is wrong with a text, or None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from testbed.topology.section import Section
from testbed.topology.source import quote

__all__ = [
    "dns_1035_label",
    "dns_label",
    "dns_subdomain",
    "environment_name",
    "label_key",
    "label_value",
    "labels",
    "port_name",
]

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")
_ENVIRONMENT = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_PORT = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


def dns_label(text: str) -> str | None:
    """RFC 1123 label: node, namespace, container and testbed names."""
    if len(text) > 63:
        return f"{quote(text)} has {len(text)} characters; a DNS label has at most 63"
    if not _LABEL.fullmatch(text):
        return (
            f'{quote(text)} is not a DNS label (RFC 1123); use lower-case letters, digits and "-", '
            "beginning and ending with a letter or digit"
        )
    return None


def dns_1035_label(text: str) -> str | None:
    """RFC 1035 label: Service names, which do not begin with a digit."""
    if text[:1].isdecimal() and dns_label(text) is None:
        return (
            f"{quote(text)} begins with a digit; a Service's name begins with a letter (RFC 1035)"
        )
    return dns_label(text)


def dns_subdomain(text: str) -> str | None:
    """RFC 1123 subdomain: pod names."""
    if len(text) > 253:
        return f"{quote(text)} has {len(text)} characters; a DNS subdomain has at most 253"
    if not all(_LABEL.fullmatch(part) for part in text.split(".")):
        return (
            f'{quote(text)} is not a DNS subdomain (RFC 1123); use lower-case letters, digits, "-" '
            'and ".", every part beginning and ending with a letter or digit'
        )
    return None


def label_key(text: str) -> str | None:
    """A label's or annotation's key: ``name`` or ``prefix.example/name``."""
    prefix, slash, name = text.rpartition("/")
    if slash and dns_subdomain(prefix):
        return f"{quote(text)} has a prefix that is no DNS subdomain; write as in example.com/name"
    if not _QUALIFIED.fullmatch(name) or len(name) > 63:
        return (
            f'{quote(text)} is not a valid key; use at most 63 letters, digits, "-", "_" and ".", '
            "beginning and ending with a letter or digit, after an optional prefix/"
        )
    return None


def label_value(text: str) -> str | None:
    """A label's value; may be empty."""
    if text and (len(text) > 63 or not _QUALIFIED.fullmatch(text)):
        return (
            f'{quote(text)} is not a label value; use at most 63 letters, digits, "-", "_", ".", '
            "beginning and ending with a letter or digit"
        )
    return None


def port_name(text: str) -> str | None:
    """A container port's name (RFC 6335 service name)."""
    has_letter = any(character.isalpha() for character in text)
    if len(text) > 15 or not has_letter or not _PORT.fullmatch(text):
        return (
            f"{quote(text)} is not a port name; use at most 15 lower-case letters, digits and "
            'single "-", at least one of them a letter'
        )
    return None


def environment_name(text: str) -> str | None:
    """An environment variable's name."""
    if not _ENVIRONMENT.fullmatch(text):
        return (
            f"{quote(text)} is not an environment variable name; use letters, digits, "
            '"_", "-" and ".", not beginning with a digit'
        )
    return None


def labels(section: Section, key: str) -> Mapping[str, str]:
    """The valid labels under ``key`` of ``section``; the others are reported."""
    nested = section.section(key)
    if nested is None:
        return {}
    found: dict[str, str] = {}
    for name, value in section.texts_by_key(key).items():
        errors = [error for error in (label_key(name), label_value(value)) if error]
        for error in errors:
            nested.problem(name, error)
        if not errors:
            found[name] = value
    return found
