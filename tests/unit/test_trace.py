"""Trace ids go from X-Ray's form to W3C's and back."""

from __future__ import annotations

import pytest

from headrace.trace import is_traceparent, traceparent_from_xray, xray_from_traceparent

XRAY = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
W3C = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"


def test_each_form_is_turned_into_the_other() -> None:
    assert traceparent_from_xray(XRAY) == W3C
    assert xray_from_traceparent(W3C) == XRAY


def test_what_was_not_sampled_stays_so() -> None:
    assert traceparent_from_xray(XRAY.replace("Sampled=1", "Sampled=0")) == W3C[:-1] + "0"
    assert xray_from_traceparent(W3C[:-1] + "0") == XRAY[:-1] + "0"


@pytest.mark.parametrize("header", [None, "", "Root=1-5759e988-bd862e3fe1be46a994272793", "x"])
def test_a_header_without_a_parent_makes_no_traceparent(header: str | None) -> None:
    assert traceparent_from_xray(header) is None


@pytest.mark.parametrize("value", [None, "", "01-zz", W3C + "-more", W3C.upper()])
def test_what_is_no_traceparent_makes_no_header(value: str | None) -> None:
    assert xray_from_traceparent(value) is None


def test_a_traceparent_is_known_by_its_form() -> None:
    assert is_traceparent(W3C)
    assert not is_traceparent(XRAY)
