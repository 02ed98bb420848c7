"""Algorithm 2 on a linear network, whose robust accuracy at every radius is known."""

import pytest
import torch
from torch import nn

from robust_edge.attacks.curve import Curve
from robust_edge.data import Split
from robust_edge.evaluation.campaign import Campaign
from robust_edge.evaluation.curve import curve_stages, evaluate_curve

MARGINS = (0.02, 0.06, 0.11, 0.16, 0.3, -0.1)
"""How far each image's pixels lie on the right side of the boundary; the last one is wrong when clean."""


@pytest.fixture
def model():
    """Class 1 where the pixels' sum exceeds half: its worst case is known, each pixel down by ε."""
    layer = nn.Linear(4, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0] * 4, [1.0] * 4]))
        layer.bias.copy_(torch.tensor([2.0, -2.0]))
    return nn.Sequential(nn.Flatten(), layer).double()


class Exact(Split):
    """Pixels in double precision as they are, so that margins are exact."""

    def floats(self, index):
        return self.images[index]

    def first(self, count):
        return Exact(self.images[:count], self.labels[:count])


@pytest.fixture
def split():
    values = torch.tensor([0.5 + margin for margin in MARGINS], dtype=torch.float64)
    return Exact(values[:, None, None, None].expand(-1, 1, 2, 2).clone(), torch.ones(6, dtype=torch.int64))


def curve_of(model, split, classes, *, steps, epsilons, **options):
    """Algorithm 2 on all images of a split."""
    campaign = Campaign(
        model=model,
        evaluated=(model,),
        split=split,
        positions=tuple(range(len(split))),
        stages=curve_stages(Curve(steps=steps), epsilons),
        cumulative=False,
        batch_size=128,
        identity="",
    )
    return evaluate_curve(campaign, classes, **options)


def test_every_point_is_the_count_of_margins_above_the_radius(model, split):
    radii = (0.0, 0.05, 0.1, 0.15, 0.2)
    result = curve_of(model, split, 2, steps=10, epsilons=radii)
    assert [point.eps for point in result.points] == [0.0, 0.05, 0.1, 0.15]  # 2 of 6 is below chance: the end
    assert [point.accuracy.correct for point in result.points] == [5, 4, 3, 2]
    assert result.chance == 0.5
    assert result.steps == 10


def test_accuracy_at_chance_is_not_below_it(model, split):
    result = curve_of(model, split, 2, steps=5, epsilons=(0.0, 0.1, 0.11))
    assert [point.accuracy.correct for point in result.points][:2] == [5, 3]
    assert len(result.points) == 3


def test_all_radii_are_done_where_the_network_holds(model, split):
    seen = []
    result = curve_of(model, split, 1000, steps=3, epsilons=(0.0, 0.1, 0.2), progress=lambda *row: seen.append(row))
    assert len(result.points) == 3
    assert seen[-1][0] == seen[-1][1]


def test_the_panel_shows_images_in_the_ball_and_what_the_network_says(model, split):
    result = curve_of(model, split, 2, steps=5, epsilons=(0.0, 0.05, 0.1), panel_images=4)
    clean = split.images[:4]
    assert result.panel.truth == (1, 1, 1, 1)
    assert torch.equal(torch.tensor(result.panel.pixels[0], dtype=torch.float64), clean)
    for point, pictures, predicted in zip(result.points, result.panel.pixels, result.panel.predicted, strict=True):
        shown = torch.tensor(pictures, dtype=torch.float64)
        assert (shown - clean).abs().max() <= point.eps + 1e-12
        assert tuple(model(shown).argmax(1).tolist()) == predicted
        assert predicted == tuple(int(margin > point.eps) for margin in MARGINS[:4])


def test_the_network_s_statistics_and_mode_are_left_alone():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 2)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images = torch.randint(0, 255, (8, 1, 4, 4), dtype=torch.uint8)
    curve_of(network, Split(images, torch.arange(8) % 2), 2, steps=2, epsilons=(0.0, 0.1))
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
