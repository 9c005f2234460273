"""From both ends at once, as accelerators run `blocked`, all is as from one."""

import pytest

from tests import both_ends, contract
from tests.cases import more, tagged

pytestmark = pytest.mark.usefixtures("both_ends")

NAMES = [case.name for case in tagged("ci")]
# The small shape, and the one of many chunks; what else there is are values.
SHAPES = ("ragged", "many_chunks")


def test_accelerators_take_both_ends():
    """Or nothing here shows anything."""
    assert both_ends.HOW["sides"] == 2


@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient(name):
    """Against the oracle, in float32."""
    contract.check_value("both_ends", name, "float32")
    contract.check_gradient("both_ends", name, "float32")


@pytest.mark.parametrize("name", SHAPES)
def test_value_and_gradient_in_double(name, x64):
    """Against the oracle, in float64, to 1e-9."""
    contract.check_value("both_ends", name, "float64")
    contract.check_gradient("both_ends", name, "float64")


@pytest.mark.parametrize("name", ["ragged", more("many_chunks")])
@pytest.mark.parametrize(
    "check", contract.INVARIANCES, ids=lambda check: check.__name__
)
def test_invariance(check, name):
    """What must not matter does not."""
    check("both_ends", name)


def test_more_padding():
    """Nor does the width of the arrays: labels end elsewhere in the mirror."""
    contract.check_more_padding("both_ends", "ragged")
