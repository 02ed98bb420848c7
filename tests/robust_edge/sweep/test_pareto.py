import csv
import io

import numpy as np

from robust_edge.sweep.grid import read_axis
from robust_edge.sweep.page import fronts_figure
from robust_edge.sweep.pareto import COSTS, front, pareto_csv
from robust_edge.sweep.results import Attacked, Row


def row(robust, size, *, cell="c", macs=7):
    attacked = Attacked(attack="PGD-50 eps=0.1", clean=1.0, robust=robust, images=None)
    return Row(cell=cell, values=("1",), weights=10, nonzero=5, macs=macs, dense_macs=9, attacked=attacked, bytes=size)


def test_the_front_is_that_of_a_sweep_over_rising_costs():
    random = np.random.default_rng(0)
    for _ in range(50):
        rows = [row(r / 8, int(b)) for r, b in random.integers(0, 9, (20, 2))]
        expected, best = set(), -1.0
        for size in sorted({item.bytes for item in rows}):
            top = max(item.attacked.robust for item in rows if item.bytes == size)
            if top > best:
                expected |= {i for i, item in enumerate(rows) if (item.bytes, item.attacked.robust) == (size, top)}
                best = top
        found = front(rows, COSTS["bytes"])
        assert set(found) == expected
        assert [rows[i].bytes for i in found] == sorted(rows[i].bytes for i in found)


def test_rows_without_a_cost_are_on_no_front_of_it():
    assert front([row(0.9, None), row(0.1, 5)], COSTS["bytes"]) == [1]
    assert front([row(0.9, 1)], COSTS["latency"]) == []


def test_csv_has_a_line_for_each_row_and_no_formulas():
    text = pareto_csv([read_axis("keep=1")], [row(0.9, 5, cell="=1+1"), row(0.8, 9, macs=None)])
    first, second = csv.DictReader(io.StringIO(text))
    assert (first["cell"], first["keep"], first["bytes"], first["robust accuracy"]) == ("'=1+1", "1", "5", "0.900000")
    assert (first["on front of bytes"], second["on front of bytes"], second["macs"]) == ("yes", "no", "")


def test_numbers_of_points_in_one_place_are_written_side_by_side():
    found = [row(0.5, 100), row(0.501, 101), row(0.7, 200), row(0.5, 200), row(0.7, 200)]
    (axes,) = fronts_figure(found, ["bytes"]).axes
    assert [text.get_text() for text in axes.texts] == ["1, 2", "3, 5", "4"]
