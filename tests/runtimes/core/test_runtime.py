from __future__ import annotations

import os
import threading
import warnings

import numpy as np
import pytest

from robust_edge_runtimes.core.errors import BundleError, InputError
from robust_edge_runtimes.core.runtime import RuntimeInfo


@pytest.fixture
def manifest(opened):
    return opened.manifest


@pytest.fixture
def fake(Fake, manifest, linear):
    return Fake(manifest, linear.logits)


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(0, 1, (3, 1, 4, 4)).astype(np.float32)


def test_infer_hands_checked_images_to_the_adapter(fake, images, linear):
    with fake as model:
        assert np.array_equal(model.infer(images), linear.logits(images))
    assert np.array_equal(fake.events[1], images)


@pytest.mark.parametrize(
    "bad",
    [
        lambda x: x[0],
        lambda x: x[:0],
        lambda x: x[:, :, :3],
        lambda x: x[:, :, :, :3],
        lambda x: np.repeat(x, 3, axis=1),
        lambda x: x[..., None],
        lambda x: np.float32(0.5),
        lambda x: np.array(0.5, np.float32),
    ],
)
def test_other_shapes_are_refused(fake, images, bad):
    with fake as model, pytest.raises(InputError, match="images must be"):
        model.infer(bad(images))
    assert fake.events == ["open", "close"]


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.uint8, np.int64, bool, complex, object, ">f4"])
def test_other_types_are_refused_with_the_way_out(fake, images, kind):
    # floats are in [0, 1] already: dividing them again would raise no error and give wrong logits
    scale = "" if np.dtype(kind).kind == "f" else r" / 255"
    with fake as model, pytest.raises(InputError, match=rf"must be a float32 array, not .*astype\('float32'\){scale}$"):
        model.infer(images.astype(kind))


def test_a_list_is_not_an_array(fake, images):
    with fake as model, pytest.raises(InputError, match="not list"):
        model.infer(images.tolist())


@pytest.mark.parametrize("pixel", [-1e-6, 1 + 1e-6, 255, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (2, 0, 3, 3), (1, 0, 2, 1)])
def test_one_pixel_out_of_range_is_found_wherever_it_is(fake, images, pixel, place):
    images[place] = pixel
    with fake as model, pytest.raises(InputError, match=r"pixels must lie in \[0, 1\]"):
        model.infer(images)


def test_the_ends_of_the_range_are_inside(fake, images):
    images[0, 0, 0, :2] = 0, 1
    with fake as model:
        model.infer(images)


@pytest.mark.parametrize("view", [lambda x: x[:, :, ::-1], lambda x: x.transpose(0, 1, 3, 2), np.asfortranarray])
def test_views_reach_the_adapter_contiguous_and_unchanged(fake, images, view):
    before = images.copy()
    with fake as model:
        model.infer(view(images))
    assert fake.events[1].flags.c_contiguous
    assert np.array_equal(fake.events[1], view(before))
    assert np.array_equal(images, before)


def test_a_fixed_batch_takes_that_many_and_no_other(Fake, make_manifest, linear, golden, images):
    fake = Fake(make_manifest(linear, golden, batch=3), linear.logits)
    with fake as model:
        assert model.infer(images).shape == (3, 4)
        for wrong in (images[:2], np.concatenate([images, images])):
            with pytest.raises(InputError, match="exactly 3 images at a time"):
                model.infer(wrong)


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: np.zeros((len(x), 5), np.float32),
        lambda x: np.zeros((len(x) + 1, 4), np.float32),
        lambda x: np.zeros((4,), np.float32),
        lambda x: np.zeros((len(x), 4), np.float64),
    ],
)
def test_an_artifact_that_breaks_its_promise_is_a_bundle_error(Fake, manifest, images, answer):
    with Fake(manifest, answer) as model, pytest.raises(BundleError, match="the manifest promises"):
        model.infer(images)


def test_classify_is_the_softmax_of_the_largest_logit(Fake, manifest, images):
    row = np.array([[0.5, 2.0, -1.0, 0.0]], np.float32)
    with Fake(manifest, lambda x: row) as model:
        label, p = model.classify(images[0])
    assert label == "east"
    assert p == pytest.approx(np.exp(2) / (np.exp(0.5) + np.exp(2) + np.exp(-1) + 1), rel=1e-12)


def test_classify_survives_huge_logits(Fake, manifest, images):
    with Fake(manifest, lambda x: np.array([[3e38, -3e38, 0, 0]], np.float32)) as model:
        assert model.classify(images[0]) == ("north", 1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_no_number_is_no_class(Fake, manifest, images, bad):
    with Fake(manifest, lambda x: np.array([[0, bad, 0, 0]], np.float32)) as model:
        with pytest.raises(BundleError, match="NaN or infinity"):
            model.classify(images[0])
        assert not np.isfinite(model.infer(images[:1])).all()


def test_nothing_runs_before_opening_or_after_closing(fake, images):
    with pytest.raises(InputError, match="not open"):
        fake.infer(images)
    with fake:
        pass
    with pytest.raises(InputError, match="not open"):
        fake.infer(images)
    with pytest.raises(InputError, match="not open"):
        fake.info


def test_open_and_close_count_once_and_can_be_repeated(fake):
    assert fake.open().open() is fake
    fake.close()
    fake.close()
    assert fake.events == ["open", "close"]
    with fake as model:
        assert model.info == RuntimeInfo("fake", "1", "cpu", "fake", 1)
    assert fake.events == ["open", "close", "open", "close"]


def test_leaving_the_block_by_an_error_closes(fake):
    with pytest.raises(RuntimeError), fake:
        raise RuntimeError
    assert fake.events == ["open", "close"]


def test_a_runtime_that_failed_to_open_is_not_open(Fake, manifest, images, linear):
    class Broken(Fake):
        def open_impl(self):
            raise BundleError("no")

    broken = Broken(manifest, linear.logits)
    with pytest.raises(BundleError), broken:
        pytest.fail("entered")
    with pytest.raises(InputError, match="not open"):
        broken.infer(images)
    broken.close()
    assert broken.events == []


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**12])
def test_impossible_thread_counts_are_refused(Fake, manifest, linear, threads):
    with pytest.raises(InputError, match=f"threads must be 1 to 1024, not {threads}"):
        Fake(manifest, linear.logits, threads=threads)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7])
@pytest.mark.parametrize("batch", [None, 3])
def test_any_number_of_images_whatever_the_batch(Fake, make_manifest, linear, golden, count, batch):
    fake = Fake(make_manifest(linear, golden, batch=batch), linear.logits)
    with fake as model:
        assert np.array_equal(model.infer_all(golden.clean[:count]), linear.logits(golden.clean[:count]))
    sizes = [len(event) for event in fake.events if not isinstance(event, str)]
    assert sizes == ([count] if batch is None else [3] * -(-count // 3))


def test_one_image_of_a_fixed_batch_is_classified(Fake, make_manifest, linear, golden):
    with Fake(make_manifest(linear, golden, batch=3), linear.logits) as model:
        label, _ = model.classify(golden.clean[0])
    assert label == ("north", "east", "south", "west")[golden.labels[0]]


@pytest.mark.parametrize("bad", [np.zeros((0, 1, 4, 4), np.float32), np.zeros((1, 4, 4), np.float32), [[0.5]], None])
@pytest.mark.parametrize("batch", [None, 3])
def test_infer_all_refuses_what_infer_refuses(Fake, make_manifest, linear, golden, bad, batch):
    with Fake(make_manifest(linear, golden, batch=batch), linear.logits) as model, pytest.raises(InputError):
        model.infer_all(bad)


@pytest.mark.parametrize(("batch", "count"), [(None, 1), (None, 5), (3, 1), (3, 2), (3, 3)])
def test_prepared_images_are_checked_once(Fake, make_manifest, linear, golden, batch, count, monkeypatch):
    with Fake(make_manifest(linear, golden, batch=batch), linear.logits) as model:
        call = model.prepare(golden.clean[:count])
        monkeypatch.setattr(type(model), "_checked", None)
        assert np.array_equal(call()[:count], linear.logits(golden.clean[:count]))
        assert np.array_equal(call()[:count], linear.logits(golden.clean[:count]))
        assert len(call()) == (batch or count)


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("change", [lambda x: x[:0], lambda x: x[0], lambda x: x + 1, lambda x: x.tolist()])
def test_prepared_refuses_what_infer_refuses(Fake, make_manifest, linear, golden, batch, change):
    with Fake(make_manifest(linear, golden, batch=batch), linear.logits) as model, pytest.raises(InputError):
        model.prepare(change(golden.clean[:3]))


def test_prepared_needs_an_open_runtime_and_no_more_than_a_fixed_batch(Fake, make_manifest, linear, golden):
    fake = Fake(make_manifest(linear, golden, batch=3), linear.logits)
    with pytest.raises(InputError, match="not open"):
        fake.prepare(golden.clean[:3])
    with fake as model, pytest.raises(InputError, match="exactly 3"):
        model.prepare(golden.clean[:4])


def in_a_fork(action):
    """The error of an action in a child; empty if there is none."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside the threads of other tests
        child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as told:
        return told.read()


@pytest.mark.parametrize(("threads", "refused"), [(1, False), (2, True)])
def test_a_forked_process_has_none_of_the_threads_and_says_so(Fake, opened, golden, threads, refused):
    class Threaded(Fake):
        uses_threads = True

    model = Threaded(opened.manifest, lambda x: golden.clean_logits[: len(x)], threads=threads).open()
    images = golden.clean[:1]

    def close():
        model.close()
        assert (str(model.events[-1]) == "close") is not refused

    told = in_a_fork(lambda: model.infer(images))
    assert ("loaded with 2 threads before this process was forked" in told) is bool(told) is refused
    assert in_a_fork(close) == ""
    model.infer(images)
    model.close()


def test_a_process_that_is_forked_while_another_thread_infers_says_so(Fake, opened, golden):
    entered, leave = threading.Event(), threading.Event()

    def logits(x):
        if len(x) == 2:
            entered.set()
            leave.wait(20)
        return golden.clean_logits[: len(x)]

    model = Fake(opened.manifest, logits).open()
    other = threading.Thread(target=model.infer, args=(golden.clean[:2],))
    other.start()
    assert entered.wait(20)
    assert "in use before this process was forked" in in_a_fork(lambda: model.infer(golden.clean[:1]))
    assert in_a_fork(model.close) == ""
    leave.set()
    other.join()
    assert in_a_fork(lambda: model.infer(golden.clean[:1])) == ""
