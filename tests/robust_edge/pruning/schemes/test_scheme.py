"""Selection of the highest scores by a histogram against sorting."""

import pytest
import torch

from robust_edge.pruning.schemes.scheme import HISTOGRAM_FROM, highest, lowest_of_highest

pytestmark = pytest.mark.quick
SCORES = {
    "normal": lambda noise: noise.abs(),
    "many ties": lambda noise: (noise.abs() * 4).round(),
    "zeros": lambda noise: noise.clamp_min(0),
    "one bin": lambda noise: 1 + noise.abs() * 1e-6,
    "huge": lambda noise: noise.abs() * 3e38,
    "negative": lambda noise: noise,
}


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize("share", [1e-6, 0.01, 0.1, 0.5, 0.999, 1.0])
def test_lowest_of_the_highest_is_that_of_the_sorted_scores(scores, share):
    noise = torch.randn(HISTOGRAM_FROM + 1, generator=torch.Generator().manual_seed(0))
    values = scores(noise)
    count = max(1, int(share * len(values)))
    assert lowest_of_highest(values, count) == values.sort(descending=True).values[count - 1]


def test_ties_go_to_the_first_positions_also_with_a_histogram():
    scores = torch.ones(HISTOGRAM_FROM)
    scores[-1] = 2
    kept = highest(scores, 4)
    assert kept.nonzero().flatten().tolist() == [0, 1, 2, len(scores) - 1]
