"""Kubernetes' rules for names."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from testbed.topology import names

Check = Callable[[str], str | None]


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (names.dns_label, "a"),
        (names.dns_label, "0-a"),
        (names.dns_label, "a" * 63),
        (names.dns_subdomain, "web.example-1.com"),
        (names.label_key, "app"),
        (names.label_key, "app.kubernetes.io/Name_1"),
        (names.label_value, ""),
        (names.label_value, "v1.0_A-b"),
        (names.port_name, "http-2"),
        (names.environment_name, "_A.b-1"),
    ],
)
def test_accepted(check: Check, text: str) -> None:
    """Names that Kubernetes takes."""
    assert check(text) is None


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (names.dns_label, ""),
        (names.dns_label, "-a"),
        (names.dns_label, "a-"),
        (names.dns_label, "A"),
        (names.dns_label, "a.b"),
        (names.dns_label, "a\n"),
        (names.dns_label, "ä"),
        (names.dns_label, "a" * 64),
        (names.dns_subdomain, ""),
        (names.dns_subdomain, "a..b"),
        (names.dns_subdomain, "a" * 254),
        (names.label_key, ""),
        (names.label_key, "/a"),
        (names.label_key, "a/"),
        (names.label_key, "a/b/c"),
        (names.label_key, "a" * 64),
        (names.label_value, "-"),
        (names.label_value, "a" * 64),
        (names.port_name, "1"),
        (names.port_name, "a--b"),
        (names.port_name, "HTTP"),
        (names.port_name, "a" * 16),
        (names.environment_name, ""),
        (names.environment_name, "1A"),
        (names.environment_name, "A=B"),
    ],
)
def test_refused(check: Check, text: str) -> None:
    """Names that Kubernetes refuses; the message shows them."""
    error = check(text)
    assert error is not None
    assert error.startswith('"')
