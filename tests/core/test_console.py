"""Values as people read them."""

import math

import pytest

from loraloop.core.console import value_with_error


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0.8938, 0.0122, "0.894 ± 0.012"),
        (94.308, 0.7, "94.31 ± 0.70"),
        (0.0228, 0.0011, "0.0228 ± 0.0011"),
        (1.0, 0.0, "1.000 ± 0.000"),
        (4887.2, 12.3, "4887 ± 12"),
        (0.25, None, "0.2500"),
        (4887.25, None, "4887"),
        (math.inf, 1.0, "inf"),
        (0.5, math.nan, "0.5000"),
    ],
)
def test_a_value_has_the_decimals_that_its_error_allows(value, error, shown):
    """The error is shown with two significant digits and the value with as many decimals; without one, four."""
    assert value_with_error(value, error) == shown
