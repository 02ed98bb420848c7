"""The report: the page is one self-contained file, and states what is missing where it would be."""

import dataclasses
import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from robust_edge.reporting import figures, formats
from robust_edge.reporting import page as page_module
from robust_edge.reporting.collect import collect
from robust_edge.reporting.drawing import svg_uri
from robust_edge.reporting.page import write_report
from robust_edge.run.directory import open_run
from robust_edge_runtimes.bench.energy import EnergySource
from robust_edge_runtimes.bench.harness import Harness
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.modes.mode import Mode
from robust_edge_runtimes.present.tables import percent
from robust_edge_runtimes.verdict.flags import Flag
from robust_edge_runtimes.verdict.statistic import Drop
from tests.robust_edge.reporting.samples import ARTIFACT, MACHINE, bench_of, verdict_of, written

HOSTILE = """_<script>alert('1')</script> $x^$ & "q" """.strip().replace("/", "⁄")


class Elements(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def text_of(page):
    return " ".join(" ".join(Elements(page).text).split())


def page_of(runs, tmp_path, *, verdict=None, bench=None):
    verdicts = [] if verdict is None else [written(verdict, tmp_path / "verify.json")]
    benches = [] if bench is None else [written(bench, tmp_path / "bench.json")]
    write_report(runs, verdicts, benches, tmp_path / "new" / "report.html")
    return (tmp_path / "new" / "report.html").read_text("utf-8")


@pytest.fixture
def undrawn(monkeypatch):
    """For tests of the text: figures are built but not rendered, which is what takes the time."""
    for name in ("svg_uri", "png_uri"):
        monkeypatch.setattr(page_module, name, lambda figure: "data:image/png;base64,")
    monkeypatch.setattr(page_module, "write_plots", lambda run: None)


def test_each_class_has_its_accuracies_and_a_useless_network_its_warning(runs, tmp_path, undrawn):
    text = text_of(page_of(runs, tmp_path))
    assert text.count("class by class") == 2
    assert text.count("balanced") >= 4
    assert "learnt nothing" not in text
    path = runs[0].path / "checkpoint.json"
    checkpoint = json.loads(path.read_text())
    path.write_text(json.dumps({**checkpoint, "notes": ["it has learnt nothing"]}))
    assert "it has learnt nothing" in text_of(page_of(runs, tmp_path))


def test_an_imported_run_is_not_said_to_have_been_trained(runs, tmp_path, undrawn):
    path = runs[1].path / "checkpoint.json"
    imported = {"file": "/nets/my net.onnx", "sha256": "5" * 64, "options": ["--mean", "0.3"]}
    path.write_text(json.dumps({**json.loads(path.read_text()), "imported": imported}))
    (runs[1].path / "metrics.jsonl").unlink()
    text = text_of(page_of(runs[1:], tmp_path, verdict=verdict_of(runs[1])))
    assert "was imported, not trained here" in text
    assert f"✓ imported as {runs[1].name}" in text
    assert f"robust-edge import '/nets/my net.onnx' --mean 0.3 -o {runs[1].path}-again" in text
    assert "imported dense" in text
    for wrong in ("metrics.jsonl", "benign dense", "✓ trained", "robust-edge compress", "trained with ("):
        assert wrong not in text, wrong


def test_a_full_page_stands_alone(runs, tmp_path):
    page = page_of(runs, tmp_path, verdict=verdict_of(runs[0]), bench=bench_of())
    elements = Elements(page)
    for tag, attributes in elements.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "srcset", "data", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:image/")), (tag, attributes)
    without_images = re.sub(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.search(r"https?:|url\(|@import|file:", without_images)
    pictures = [attributes for tag, attributes in elements.tags if tag == "img"]
    assert len(pictures) == 4 + 2 + 1 + 2  # layers, curve, weights, loss; a panel a run; latency; blind spots a run
    assert all(attributes["alt"] for attributes in pictures)
    targets = {attributes.get("id") for _, attributes in elements.tags}
    links = {attributes["href"][1:] for tag, attributes in elements.tags if tag == "a"}
    assert links <= targets
    assert len(links) == 10


@pytest.mark.usefixtures("undrawn")
def test_a_full_page_says_what_was_measured(runs, tmp_path):
    text = text_of(page_of(runs, tmp_path, verdict=verdict_of(runs[0]), bench=bench_of()))
    assert "Not here:" not in text
    for run in collect(runs, [], []).runs:
        assert percent(run.result.robust.value) in text
        assert run.result.robust.interval in text
        assert run.checkpoint.weights_sha256 in text
        assert f"robust-edge compress --config {run.run.path}/config.yaml" in text
        for layer in run.checkpoint.sparsity.layers:
            assert layer.name in text
            assert formats.with_thousands(layer.nonzero).replace("\N{NARROW NO-BREAK SPACE}", " ") in text
    assert "PGD-2×3, ε = 0.1" in text
    assert "Algorithm 2: PGD-1 at every ε" in text
    assert "✓ PASS" in text
    assert ARTIFACT in text
    assert "drop 0.0 points, interval −0.5 to +0.5, budget 1" in text
    assert "✓ timed , the same bytes, as tenth" in text
    assert "onnxruntime: dense kernels." in text
    assert "2.00×" in text
    assert "dense , the baseline, which is not a dense network" in text  # both entries keep a tenth
    assert "unstable above" in text
    assert "Unstable:" not in text


@pytest.mark.usefixtures("undrawn")
def test_a_failed_verdict_leads_the_page(runs, tmp_path):
    lost = Drop(7.3, 4.1, 10.4, 1.0)
    good = verdict_of(runs[0])
    mode = dataclasses.replace(good.modes[0], robust_drop=lost)
    flag = Flag("randomised", "other logits the second time")
    bad = verdict_of(
        runs[0], outcome="fail", passed=False, reasons=("robust_drop: 7.3 points",), modes=(mode,), flags=(flag,)
    )
    files = [written(good, tmp_path / "good.json"), written(bad, tmp_path / "bad.json")]
    write_report(runs, files, [], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    text = text_of(page)
    assert text.index("✗ FAIL") < text.index("✓ PASS")
    assert "<title>FAIL" in page
    assert "robust_drop: 7.3 points" in text
    assert "+4.1 to +10.4" in text
    assert "✗ exceeded" in text
    assert "randomised : other logits the second time" in text
    assert "✗ timed: this artifact is in no bench result" in text


@pytest.mark.usefixtures("undrawn")
def test_an_undecided_verdict_says_so_and_what_would_decide(runs, tmp_path):
    good = verdict_of(runs[0])
    mode = dataclasses.replace(good.modes[0], clean_drop=Drop(0.5, -0.4, 1.4, 1.0))
    line = "clean_drop: 0.5 points, about 900 images would decide"
    changes = {"outcome": "undecided", "passed": False, "undecided": (line,), "modes": (mode,)}
    page = page_of(runs, tmp_path, verdict=dataclasses.replace(good, **changes), bench=bench_of())
    text = text_of(page)
    assert "? UNDECIDED" in text
    assert text.count("? undecided") == 2  # the latency of one image, and of many
    assert "✗ failed" not in text
    assert "✓ PASS" not in text
    assert "<title>UNDECIDED" in page
    assert line in text
    assert "undecided: too few images" in text


@pytest.mark.usefixtures("undrawn")
def test_a_verdict_of_a_stranger_is_marked(runs, tmp_path):
    text = text_of(page_of(runs, tmp_path, verdict=verdict_of(runs[0], checkpoint_sha256="b" * 64)))
    assert "belongs to no run on this page" in text


@pytest.mark.usefixtures("undrawn")
def test_an_unstable_measurement_is_marked(runs, tmp_path):
    text = text_of(page_of(runs, tmp_path, bench=bench_of(wobble=1.5)))
    assert "Unstable: tenth, 1 image a call" in text


def test_names_are_text(runs, tmp_path):
    folder = runs[0].path.rename(runs[0].path.with_name(HOSTILE))
    path = folder / "checkpoint.json"
    described = json.loads(path.read_text())
    described["model"]["classes"][0] = "<b>$\\frac$</b>"
    path.write_text(json.dumps(described))
    run = open_run(folder)
    bench = bench_of()
    entries = (dataclasses.replace(bench.entries[0], label=HOSTILE), bench.entries[1])
    bench = dataclasses.replace(bench, baseline=HOSTILE, entries=entries)
    verdict = verdict_of(run, passed=False, reasons=("<i>reason</i>",), notes=("<i>note</i>",))
    page = page_of([run, runs[1]], tmp_path, verdict=verdict, bench=bench)
    assert html.escape(HOSTILE, quote=False)[:20] in page
    assert not {"script", "i>"} & {tag for tag, _ in Elements(page).tags}
    for raw in ("<script", "<i>reason", "<i>note", "<b>$"):
        assert raw not in page


def test_the_page_repeats_itself(runs, data):
    curves = [(run, run.curve) for run in data.runs]
    assert svg_uri(figures.accuracy_curves(curves)) == svg_uri(figures.accuracy_curves(curves))


@pytest.mark.usefixtures("undrawn")
def test_missing_results_are_named_with_their_commands(runs, tmp_path):
    sparse, benign = runs
    (sparse.path / "evaluations" / "pgd.json").unlink()
    path = benign.path / "evaluations" / "curve.json"
    record = json.loads(path.read_text())
    record["checkpoint_sha256"] = "0" * 64
    path.write_text(json.dumps(record))
    text = text_of(page_of(runs, tmp_path))
    assert f"robust-edge evaluate {sparse.path} --eps 0.1 --steps 2 --restarts 3" in text  # the attack of the other run
    assert "benign: its stored result belongs to an older checkpoint" in text
    assert f"robust-edge evaluate {benign.path} --attack curve" in text
    assert "NO VERDICT" in text
    assert f"robust-edge verify bundles/sparse --against {sparse.path} -o verify.json" in text
    assert "robust-edge bench bundles/benign bundles/sparse -o bench.json" in text


def test_an_unfinished_run_is_reported_as_far_as_it_went(runs, tmp_path):
    run = runs[0]
    for name in ("checkpoint.json", "checkpoint.safetensors", "environment.json"):
        (run.path / name).unlink()
    (run.path / "metrics.jsonl").write_text((run.path / "metrics.jsonl").read_text().splitlines()[0] + "\n")
    text = text_of(page_of([run], tmp_path))
    assert "1 of 3 epochs" in text
    assert text.count(f"robust-edge compress --resume -o {run.path}") >= 5
    assert "first finish a run" in text
    assert "not recorded: environment.json is missing" in text
    assert sorted(path.name for path in (run.path / "plots").iterdir()) == ["loss.png", "schedules.png"]


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_an_epoch_is_reported(runs, tmp_path):
    run = runs[0]
    for name in ("checkpoint.json", "checkpoint.safetensors", "metrics.jsonl"):
        (run.path / name).unlink()
    assert "0 of 3 epochs" in text_of(page_of([run], tmp_path))


def test_runs_of_one_name_are_told_apart(runs, tmp_path):
    twin = Path(shutil.copytree(runs[0].path, tmp_path / "elsewhere" / runs[0].name))
    names = [run.name for run in collect([runs[0], open_run(twin)], [], []).runs]
    assert names == [str(runs[0].path), str(twin)]


def test_each_run_gets_its_plots_and_loses_stale_ones(runs, tmp_path):
    page_of(runs[:1], tmp_path)
    plots = runs[0].path / "plots"
    names = {"attacked.png", "curve.png", "layers.png", "loss.png", "schedules.png", "weights.png"}
    assert {path.name for path in plots.iterdir()} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots.iterdir())
    (runs[0].path / "evaluations" / "curve.json").unlink()
    page_of(runs[:1], tmp_path)
    assert {path.name for path in plots.iterdir()} == names - {"attacked.png", "curve.png"}


@pytest.mark.parametrize("option", ["--verify", "--bench"])
@pytest.mark.parametrize("content", ["{", "[1]", '{"passed": true}', "{}", None])
def test_a_wrong_file_is_one_clear_error(option, content, runs, tmp_path, refused):
    path = tmp_path / "wrong.json"
    if content is not None:
        path.write_text(content)
    line = refused("report", runs[0].path, option, path, "-o", tmp_path / "report.html")
    assert str(path) in line
    assert f"`robust-edge {option[2:]}" in line
    assert not (tmp_path / "report.html").exists()


def test_verdict_and_bench_exchanged(runs, tmp_path):
    path = written(bench_of(), tmp_path / "bench.json")
    with pytest.raises(InputError, match="not what `robust-edge verify` writes"):
        write_report(runs, [path], [], tmp_path / "report.html")


def damage_weights(run):
    path = run.path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")


def damage_metrics(run):
    (run.path / "metrics.jsonl").write_text('{"epoch": 1}\n')


def damage_panel(run):
    path = run.path / "evaluations" / "curve.json"
    record = json.loads(path.read_text())
    record["curve"]["panel"]["predicted"][0][0] = 99
    path.write_text(json.dumps(record))


@pytest.mark.parametrize("damage", [damage_weights, damage_metrics, damage_panel])
def test_a_damaged_run_is_refused(damage, runs, tmp_path):
    damage(runs[0])
    with pytest.raises(InputError, match=str(runs[0].path)):
        write_report(runs, [], [], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_folder_or_no_run_is_refused(runs, tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        write_report(runs, [], [], tmp_path)
    with pytest.raises(InputError, match="at least one run"):
        write_report([], [], [], tmp_path / "report.html")
    bench = written(bench_of(), tmp_path / "bench.json")
    with pytest.raises(InputError, match="one of the files to report on"):
        write_report(runs, [], [bench], tmp_path / "." / "bench.json")


@pytest.mark.usefixtures("undrawn")
def test_no_file_that_is_no_older_report_is_replaced_by_a_table(runs, tmp_path):
    page, notes = tmp_path / "README.html", tmp_path / "README.md"
    notes.write_text("mine")
    for content in (None, "<title>mine</title>"):
        if content is not None:
            page.write_text(content)
        with pytest.raises(InputError, match=r"README\.md would be replaced by a table of"):
            write_report(runs, [], [], page)
    assert (page.read_text(), notes.read_text()) == ("<title>mine</title>", "mine")
    notes.unlink()
    for _ in range(2):
        assert notes in write_report(runs, [], [], page)
    with pytest.raises(InputError, match=r"name it README\.html"):
        write_report(runs, [], [], notes)


@pytest.mark.usefixtures("undrawn")
def test_benches_of_two_devices_share_a_figure_and_a_table(runs, tmp_path):
    here, there = bench_of(), bench_of()
    there = dataclasses.replace(
        there,
        machine=dataclasses.replace(MACHINE, cpu="Other CPU"),
        harness=Harness(300.0, 5000.0, "tenth", 0.03, True),
        over_budget=("tenth: p90 of one image is 9 ms, the budget 5 ms",),
        entries=tuple(dataclasses.replace(entry, energy=EnergySource(None, "no RAPL here")) for entry in there.entries),
    )
    paths = [written(here, tmp_path / "a.json"), written(there, tmp_path / "b.json")]
    out = write_report(runs, [], paths, tmp_path / "report.html")
    page = text_of((tmp_path / "report.html").read_text("utf-8"))
    assert "One image on every device that was timed" in page
    assert "100 images on every device that was timed" in page
    assert (
        "0.30 µs of every call for one image are the overhead of the measurement, 3.0% of the median of tenth" in page
    )
    assert "too much to compare networks that are this fast" in page
    assert "Energy was not measured: no RAPL here" in page
    assert "Over the latency budget: tenth: p90 of one image is 9 ms" in page
    table = next(path for path in out if path.name == "report-latency-one-image.csv").read_text()
    assert [line.split(",")[0].strip('"') for line in table.splitlines()[1:]] == ["Test CPU"] * 2 + ["Other CPU"] * 2


@pytest.mark.usefixtures("undrawn")
def test_a_single_device_needs_no_figure_of_devices(runs, tmp_path):
    assert "every device that was timed" not in page_of(runs, tmp_path, bench=bench_of())


@pytest.mark.usefixtures("undrawn")
def test_a_new_verify_mode_is_described_by_its_row(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "MODES", (*page_module.MODES, Mode("toy", "every pixel moved up by eps", "")))
    good = verdict_of(runs[0])
    verdict = dataclasses.replace(good, modes=(dataclasses.replace(good.modes[0], mode="toy"),))
    text = text_of(page_of(runs, tmp_path, verdict=verdict))
    assert "toy: every pixel moved up by eps." in text
    assert "(mode toy, 357 images)" in text
