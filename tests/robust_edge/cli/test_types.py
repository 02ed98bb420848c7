import click
import hypothesis
import pytest
from hypothesis import strategies as st

from robust_edge.cli.types import SEED, Radius
from robust_edge.pruning.settings import PruningConfig
from robust_edge.settings.options import Number
from robust_edge.settings.setting import settings_of

KEEP = Number(settings_of(PruningConfig)["keep"])


def convert(kind, text):
    return kind.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.03", 0.03), ("0", 0.0), ("1", 1.0), ("1e-2", 0.01), ("255/255", 1.0)]
)
def test_radii(text, value):
    assert convert(Radius(), text) == value


@pytest.mark.parametrize(
    "text", ["8/0", "0/0", "-1", "nan", "inf", "1/nan", "8", "256/255", "", "/", "1/", "/255", "a", "1/2/3", "8\\255"]
)
def test_what_is_no_radius(text):
    with pytest.raises(click.UsageError, match=r"8/255"):
        convert(Radius(), text)


@pytest.mark.parametrize(("text", "value"), [("0.1", 0.1), ("1", 1.0), ("1e-3", 0.001), ("1/10", 0.1)])
def test_kept_fractions(text, value):
    assert convert(KEEP, text) == value


@pytest.mark.parametrize("text", ["0", "1.5", "ten", "-0.1", "nan", "inf", "", "10%", "1/0"])
def test_what_is_no_kept_fraction(text):
    with pytest.raises(click.UsageError, match=r"10% of the weights is 0\.1"):
        convert(KEEP, text)


@pytest.mark.parametrize("text", ["-1", "9223372036854775808", "x", "1.0"])
def test_what_is_no_seed(text):
    with pytest.raises(click.UsageError):
        convert(SEED, text)


@hypothesis.given(st.text(max_size=8) | st.floats().map(str))
def test_any_text_is_a_value_in_range_or_a_usage_error(text):
    for kind, low in ((Radius(), 0.0), (KEEP, 0.0)):
        try:
            value = convert(kind, text)
        except click.UsageError:
            continue
        assert low <= value <= 1
