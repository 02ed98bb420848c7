"""What only a GPU can show; `pytest -m gpu` on a machine that has one."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from robust_edge.attacks.pgd import Pgd
from robust_edge.config.settings import resolve
from robust_edge.data import load_dataset
from robust_edge.evaluation.accuracy import attack_split
from robust_edge.run.directory import open_run
from robust_edge.training.compress import compress, resume
from robust_edge_runtimes.attacks.threat import Threat

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore:.*deterministic.*:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

FLAGS = {
    "data.limit_train": 200,
    "data.limit_test": 60,
    "data.augment": ["flip", "rotate", "shift"],
    "training.epochs": 3,
    "training.batch_size": 50,
    "attack.steps": 2,
    "device": "cuda",
}


def config_of(**flags):
    return resolve(preset="quick", flags={**FLAGS, **{name.replace("__", "."): value for name, value in flags.items()}})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_keeps_its_count_and_its_loss_falls(tmp_path, precision, channels_last, compiled):
    if precision == "bf16" and not torch.cuda.is_bf16_supported():
        pytest.skip("this GPU has no bfloat16")
    flags = {"compute__precision": precision, "compute__channels_last": channels_last, "compute__compile": compiled}
    checkpoint = compress(config_of(**flags), tmp_path / "run")
    rows = open_run(tmp_path / "run").metrics()
    assert checkpoint.sparsity.nonzero == 9373
    assert rows[-1].clean_loss < rows[0].clean_loss
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["peak_memory_bytes"] > 0


def test_a_broken_off_run_resumes_to_the_same_weights(tmp_path):
    """With deterministic kernels; otherwise weights agree up to rounding."""

    def stop(done, total, text):
        if done == 6:  # of four batches per epoch
            raise KeyboardInterrupt

    compress(config_of(deterministic=True), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        compress(config_of(deterministic=True), tmp_path / "broken", progress=stop)
    resume(tmp_path / "broken")
    whole, broken = (open_run(tmp_path / name).load_model().state_dict() for name in ("whole", "broken"))
    assert all(torch.equal(tensor, broken[name]) for name, tensor in whole.items())


def test_images_that_stay_in_the_host_s_memory_give_the_same_weights(tmp_path):
    for resident in (True, False):
        compress(config_of(data__resident=resident, deterministic=True), tmp_path / str(resident))
    left, right = (open_run(tmp_path / str(resident)).load_model().state_dict() for resident in (True, False))
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())


def test_an_evaluation_finds_what_the_cpu_finds(tmp_path):
    compress(config_of(), tmp_path / "run")
    run = open_run(tmp_path / "run")
    found = []
    for device in map(torch.device, ("cuda", "cpu")):
        split = load_dataset(run.config.data).test.to(device)
        found.append(attack_split(run.load_model().to(device), split, Pgd(steps=5), Threat(0.05)))
    assert abs(int(found[0].clean.sum()) - int(found[1].clean.sum())) <= 1
    assert abs(int(found[0].robust.sum()) - int(found[1].robust.sum())) <= 2


def test_all_gpus_train_one_network(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "gpu", "-m"]
    flags = [part for key, value in FLAGS.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(
        [*command, "robust_edge", "compress", *flags, "-q", "-o", str(tmp_path / "run")], check=True, env=environment
    )
    assert open_run(tmp_path / "run").checkpoint().sparsity.nonzero == 9373


def test_onnx_runtime_computes_on_the_gpu_what_torch_computes(tmp_path):
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("needs onnxruntime-gpu")
    from robust_edge.config.export import GoldenSettings
    from robust_edge.export import export_run
    from robust_edge_exporters.target import target_named
    from robust_edge_runtimes import load

    compress(config_of(), tmp_path / "run")
    run = open_run(tmp_path / "run")
    settings = GoldenSettings(images=20, steps=1)
    export_run(run, target_named("nvidia-gpu-onnx"), tmp_path / "bundle", golden=settings)
    images = load_dataset(run.config.data).test.floats(slice(0, 8))
    with load(tmp_path / "bundle") as model, torch.no_grad():
        np.testing.assert_allclose(model.infer(images.numpy()), run.load_model()(images).numpy(), atol=5e-2)
