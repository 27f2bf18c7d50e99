"""Spans of time as people write them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.core.durations import UNITS, span


@given(st.integers(1, 999_999), st.sampled_from(sorted(UNITS)))
def test_a_whole_number_and_a_unit_are_that_long(number, unit):
    """A number with the unit s, m, h or d is so many seconds, minutes, hours or days."""
    assert span(f"{number}{unit}") == number * timedelta(**{UNITS[unit]: 1})


@pytest.mark.parametrize("text", ["", "4", "h", "0h", "-4h", "4 h", "4H", "four hours", "1e3s", "4h30m", "4h\n"])
def test_what_is_no_span_is_refused_with_an_example(text):
    """Anything but a positive number and its unit is refused, and the error shows how to write one."""
    with pytest.raises(ValueError, match="such as 30m or 4h"):
        span(text)
