"""Tables of the report: the numbers of the records, with intervals, flags, and names that can do no harm."""

import csv
import dataclasses
import io
import shutil
from pathlib import Path

import pytest

from robust_edge.evaluation.accuracy import accuracy
from robust_edge.evaluation.audit import Audit, Check
from robust_edge.evaluation.evaluate import evaluate_run
from robust_edge.evaluation.saliency import evaluate_saliency
from robust_edge.evaluation.settings import EvaluateSettings, TransferSettings
from robust_edge.evaluation.transfer import run_transfer
from robust_edge.reporting.collect import collect, collect_runs
from robust_edge.reporting.documents import comma_separated, documents, markdown
from robust_edge.reporting.page import write_report
from robust_edge.reporting.robustness import Table, benign_points, flags_of, robustness_tables
from robust_edge.run.directory import open_run
from robust_edge_runtimes.core.files import write_json

SMALL = {"eps": 0.1, "limit": 20}


@pytest.fixture
def run(judged_run, tmp_path):
    return open_run(shutil.copytree(judged_run.path, tmp_path / "net"))


def table_of(run, key):
    return next(table for table in robustness_tables(collect_runs([run]), ()) if table.key == key)


def cells(table, row):
    return dict(zip(table.header, table.rows[row], strict=True))


def test_the_tables_hold_what_the_records_hold(run):
    fgsm = evaluate_run(run, EvaluateSettings(attack="fgsm", **SMALL))
    pgd = evaluate_run(run, EvaluateSettings(steps=10, **SMALL))
    row = cells(table_of(run, "attacks"), 0)
    assert row["benign"] == pgd.result.clean
    assert row["FGSM ℓ∞ 0.1"] == fgsm.result.robust
    assert row["PGD-10×3 ℓ∞ 0.1"] == pgd.result.robust
    assert row["validity flags"] == "none"
    models = cells(table_of(run, "models"), 0)
    tensors = run.load_model().named_parameters()
    assert models["parameters"].replace("\u202f", "") == str(sum(tensor.numel() for _, tensor in tensors))
    assert benign_points(collect_runs([run]))[0][2] == fgsm.result.robust


def test_a_flag_stands_in_every_table_made_of_the_figure(run):
    record = evaluate_run(run, EvaluateSettings(steps=2, **SMALL))
    assert record.audit.flags == ("few_steps",)
    assert cells(table_of(run, "attacks"), 0)["validity flags"] == "few_steps"
    assert "few_steps" in markdown(table_of(run, "attacks"))
    path = run.evaluations / "pgd.json"
    write_json(path, {**dataclasses.asdict(record), "audit": None})
    assert cells(table_of(run, "attacks"), 0)["validity flags"] == "NOT AUDITED"
    assert flags_of([Audit(0, ())]) == "NOT AUDITED"
    both = [Audit(1, (Check("a", raised=True, detail=""),)), None]
    assert flags_of(both) == "a, NOT AUDITED"


def test_the_summary_and_the_curve_of_the_page_carry_flags_too(run, tmp_path):
    evaluate_run(run, EvaluateSettings(steps=2, **SMALL))
    evaluate_run(run, EvaluateSettings(attack="curve", steps=2, limit=20))
    page = write_report([run], (), (), tmp_path / "report.html")[0].read_text("utf-8")
    summary, curve = page.split('id="summary"')[1].split('id="compressed"')[0], page.split('id="curve"')[1]
    assert '<small class="bad">few_steps</small>' in summary
    assert '<small class="bad">few_steps</small>' in curve.split('id="weights"')[0]
    assert cells(table_of(run, "models"), 0)["validity flags"] == "few_steps"


def test_of_an_average_every_row_bears_its_own_attack_and_flags(run, sibling_run, tmp_path):
    other = open_run(shutil.copytree(sibling_run.path, tmp_path / "other"))
    record = evaluate_run(run, EvaluateSettings(steps=10, **SMALL), other=other)
    path, pair = run.evaluations / "pgd-with-other.json", dataclasses.asdict(record.combination)
    pair["audits"] = [pair["audits"][0], {"images": 1, "checks": [{"name": "x", "raised": True, "detail": ""}]}]
    write_json(path, {**dataclasses.asdict(record), "combination": pair})
    rows = [cells(table_of(run, "combined"), row) for row in range(6)]
    assert [row["validity flags"] for row in rows] == ["none", *["x"] * 5]
    assert [row["attack"] for row in rows] == [f"PGD-10{starts} ℓ∞ 0.1" for starts in ("×3", "×3", "", "", "×3", "×3")]
    write_json(path, {**dataclasses.asdict(record), "combination": {**pair, "audits": []}})
    assert cells(table_of(run, "combined"), 0)["validity flags"] == "NOT AUDITED"


def test_what_belongs_to_other_weights_is_left_out_and_named(run, sibling_run, tmp_path):
    other = open_run(shutil.copytree(sibling_run.path, tmp_path / "other"))
    evaluate_run(run, EvaluateSettings(attack="fgsm", **SMALL), other=other)
    matrix = tmp_path / "transfer.json"
    result = run_transfer([other], [run], TransferSettings(epsilons=(0.1,), steps=10, limit=5), matrix)
    tables = robustness_tables(collect_runs([run, other]), [result])
    assert "combined" in {table.key for table in tables}
    assert not any("weights" in note for table in tables for note in table.notes)
    (other.path / "checkpoint.json").unlink()
    shutil.copy(run.path / "checkpoint.json", other.path)
    shutil.copy(run.path / "checkpoint.safetensors", other.path)
    tables = {table.key: table for table in robustness_tables(collect_runs([run, other]), [result])}
    assert "combined" not in tables
    (note,) = tables["models"].notes
    assert note.startswith("net: fgsm-with-other left out")
    assert "OTHER WEIGHTS" in tables["transfer-1-other"].notes[-1]
    assert "other" in tables["transfer-1-other"].notes[-1]


def test_a_record_of_release_0_1_is_left_out_and_named(run):
    record = evaluate_run(run, EvaluateSettings(steps=10, **SMALL))
    value = dataclasses.asdict(record)
    value["result"] = {"spec": {"attack": "pgd"}, "fates": [], "clean": value["result"]["clean"]}
    write_json(run.evaluations / "pgd.json", value)
    (data,) = collect_runs([run])
    assert (data.records, data.result, data.stale) == ((), None, ("pgd",))
    (note,) = table_of(run, "models").notes
    assert note.startswith("net: pgd left out")
    assert "release 0.1" in note


def test_a_subset_is_named_under_its_table(run):
    evaluate_run(run, EvaluateSettings(attack="fgsm", **SMALL))
    (note,) = table_of(run, "attacks").notes
    assert note.startswith("20 of ")
    assert "FGSM on net" in note


def test_markdown_and_csv_carry_intervals_and_no_formula():
    value = accuracy(3, 4)
    table = Table("k", "A | title", ("run", "right"), (("=cmd()|x", value), ("plain", None)), ("a <note>",))
    rows = list(csv.reader(io.StringIO(comma_separated(table))))
    assert rows[0] == ["run", "right", "right low", "right high", "right images"]
    assert rows[1][0] == "'=cmd()|x"
    assert [float(rows[1][i]) for i in (1, 2, 3)] == pytest.approx([value.value, value.low, value.high], abs=1e-6)
    assert rows[1][4] == "4"
    assert rows[2][1:] == [""] * 4
    text = markdown(table)
    assert "=cmd()\\|x" in text
    assert "75.0% (30.1 to 95.4)" in text
    assert "| plain | – |" in text
    assert "a &lt;note>" in text


def test_documents_lie_beside_the_page_under_harmless_names(tmp_path):
    table = Table("transfer-1-../x", "t", ("a",), (("b",),))
    written = documents([table], tmp_path / "page.html")
    assert [path.name for path in written] == ["page.md", "page-transfer-1-.._x.csv"]
    assert all(path.parent == tmp_path for path in written)


def test_transfer_saliency_and_blind_spots_are_drawn(run, tmp_path):
    pytest.importorskip("captum", reason="the extra `interpret` is not installed")
    evaluate_saliency(run, images=3)
    evaluate_run(run, EvaluateSettings(attack="curve", steps=3, limit=20))
    matrix = tmp_path / "transfer.json"
    run_transfer([run], [run], TransferSettings(epsilons=(0.1,), steps=2, limit=10), matrix)
    written = write_report([run], (), (), tmp_path / "report.html", transfers=(matrix,))
    page = written[0].read_text("utf-8")
    for text in ("Input gradients of every network", "Transfer (Algorithm 3)", "the noise of the smallest tested"):
        assert text in page
    assert {path.name for path in written[1:]} >= {"report.md", "report-curve.csv", "report-transfer-1-net.csv"}


def test_every_command_on_the_page_shows_what_the_page_shows(run, tmp_path):
    matrix = tmp_path / "transfer.json"
    run_transfer([run], [run], TransferSettings(epsilons=(0.1,), steps=1, limit=5), matrix)
    out = tmp_path / "mine.html"
    page = write_report([run], (), (), out, transfers=(matrix,))[0].read_text("utf-8")
    ends = (f"-o {out}", f"--verify verify.json -o {out}", f"--bench bench.json -o {out}")
    for end in ends:
        assert f"robust-edge report {run.path} --transfer {matrix} {end}" in page


def test_a_run_that_is_named_twice_is_shown_once(run, monkeypatch):
    monkeypatch.chdir(run.path.parent)
    (data,) = collect([run, open_run(Path(run.path.name))], [], []).runs
    assert data.name == run.name


def test_a_gradient_is_captums_and_the_finite_difference(run):
    pytest.importorskip("captum", reason="the extra `interpret` is not installed")
    import torch

    image = evaluate_saliency(run, images=2).images[0]
    model = run.load_model().double()
    pixels = torch.tensor(image.pixels, dtype=torch.float64).view(1, 1, 8, 8)
    for place in (10, 27, 44):
        step = torch.zeros(64, dtype=torch.float64)
        step[place] = 1e-6
        with torch.no_grad():
            up, down = (model(pixels + sign * step.view(1, 1, 8, 8))[0, image.truth] for sign in (1, -1))
        assert image.gradient[place] == pytest.approx(float((up - down) / 2e-6), rel=1e-3, abs=1e-4)
