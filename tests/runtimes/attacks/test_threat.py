"""What is no ball is refused."""

import pytest

from robust_edge_runtimes.attacks.threat import L2, LINF, Threat
from robust_edge_runtimes.core.errors import InputError


def test_a_ball_has_a_radius_and_a_norm():
    assert (Threat(0.1).eps, Threat(0.1).norm) == (0.1, LINF)
    assert Threat(30.0, L2).norm == L2
    with pytest.raises(InputError, match="did you mean 'linf'"):
        Threat(0.1, "lnf")


@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf")])
def test_no_radius_is_no_ball(eps):
    with pytest.raises(InputError, match="eps must be a finite radius"):
        Threat(eps)
