from __future__ import annotations

import numpy as np
import onnx
import pytest

from robust_edge_exporters.dense_baseline import with_dense_baseline
from robust_edge_exporters.formats.onnx.weights import count_nonzeros
from robust_edge_runtimes.bench.latency import Contender, bench
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.load import load
from robust_edge_runtimes.verdict.measurement import parity_of

pytest.importorskip("onnxruntime", reason="the baseline's own logits are its golden ones")


@pytest.fixture
def sparse(sealed):
    return Contender("sparse", open_bundle(sealed))


@pytest.fixture
def dense(dense_sealed):
    return Contender("dense", open_bundle(dense_sealed))


def test_a_dense_bundle_among_the_given_is_the_baseline(sparse, dense):
    for given, index in (([sparse, dense], 1), ([dense, sparse], 0), ([dense], 0), ([sparse, dense, dense], 1)):
        with with_dense_baseline(given) as (contenders, baseline):
            assert (contenders, baseline) == (given, index)


def weights(path):
    program = onnx.load(str(path))
    return {item.name: onnx.numpy_helper.to_array(item) for item in program.graph.initializer}, program


def test_without_one_the_first_is_filled(sparse):
    with with_dense_baseline([sparse]) as (contenders, baseline):
        made = contenders[0]
        assert baseline == 0
        assert contenders[1:] == [sparse]
        assert made.label == "sparse (dense weights)"
        before, _ = weights(sparse.bundle.artifact_path)
        after, program = weights(made.bundle.artifact_path)
        assert (after["weight"] != 0).all()
        kept = before["weight"] != 0
        assert np.array_equal(after["weight"][kept], before["weight"][kept])
        assert np.array_equal(after["bias"], before["bias"])
        assert after["weight"].dtype == np.float32
        filled = np.abs(after["weight"][~kept])
        assert filled.max() <= 0.1 * np.abs(before["weight"]).mean()
        assert filled.min() >= np.finfo(np.float32).tiny  # subnormal numbers would slow it down
        assert made.bundle.manifest.sparsity == count_nonzeros(program)
        assert made.bundle.manifest.sparsity.keep == 1


def test_it_is_a_whole_bundle_with_its_own_answers_and_the_same_images(sparse):
    with with_dense_baseline([sparse]) as (contenders, _):
        made = open_bundle(contenders[0].bundle.path)
        golden, own = made.golden(), sparse.bundle.golden()
        assert np.array_equal(golden.clean, own.clean)
        assert not np.array_equal(golden.clean_logits, own.clean_logits)
        with load(made) as model:
            parity = parity_of(model, golden)
        assert parity.max_logit_error == 0
        assert parity.argmax_agreement == 1


def test_it_can_be_timed_against_what_it_was_made_from(sparse):
    with with_dense_baseline([sparse]) as (contenders, baseline):
        result = bench(contenders, baseline=baseline, images=4, seconds=0.01, min_samples=1)
    assert result.baseline == "sparse (dense weights)"
    assert [entry.keep for entry in result.entries] == [1.0, 0.25]


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_the_folder_goes_away_afterwards(sparse, error):
    def use():
        with with_dense_baseline([sparse]) as (contenders, _):
            paths.append(contenders[0].bundle.path)
            assert paths[0].is_dir()
            if error is not None:
                raise error

    paths = []
    if error is None:
        use()
    else:
        with pytest.raises(error):
            use()
    assert not paths[0].exists()


def test_two_baselines_of_one_bundle_are_the_same(sparse):
    made = []
    for _ in range(2):
        with with_dense_baseline([sparse]) as (contenders, _):
            made.append((contenders[0].bundle.path / "SHA256SUMS").read_text())
    assert made[0] == made[1]


def test_nothing_to_fill_is_an_input_error(sparse, forge, bundle):
    forge(bundle, lambda value: value["artifact"].update(format="csr"))
    for given in ([], [Contender("other", open_bundle(bundle))]):
        with pytest.raises(InputError, match="no dense bundle"), with_dense_baseline(given):
            pytest.fail("entered")
