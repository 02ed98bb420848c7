"""`init` takes tensors and nothing else; nothing in the file is ever run."""

import os
import pickle
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.utils import prune

from robust_edge.models import ModelSpec, Normalized, build_model
from robust_edge.models.state_dict import load_initial, load_state_dict
from robust_edge.pruning.parametrised import materialised
from robust_edge_runtimes.core.errors import InputError


def build(seed, classes=3):
    torch.manual_seed(seed)
    names = tuple(str(i) for i in range(classes))
    return build_model(
        ModelSpec(arch="small_cnn", shape=(1, 8, 8), classes=names, mean=(0.1 * (seed + 1),), std=(0.5,))
    )


@pytest.fixture
def donor():
    return build(0)


@pytest.fixture
def model():
    return build(1)


def save(state, path):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("whole", [True, False])
def test_weights_are_taken_over_and_normalisation_stays(tmp_path, donor, model, suffix, whole):
    state = (donor if whole else donor.network).state_dict()
    mean = model.mean.clone()
    load_initial(model, save(state, tmp_path / f"weights{suffix}"))
    for name, tensor in donor.network.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], tensor), name
    assert torch.equal(model.mean, mean)
    assert not torch.equal(model.mean, donor.mean)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize(
    "prefix", ["module.", "module.network.", "_orig_mod.", "module._orig_mod.network.", "model.", "a.b._orig_mod.", ""]
)
def test_weights_as_training_scripts_store_them(tmp_path, donor, model, wrapper, prefix):
    state = {f"{prefix}{name}": tensor for name, tensor in donor.network.state_dict().items()}
    torch.save({"epoch": 7, wrapper: state, "lr": 0.1}, tmp_path / "weights.pth")
    load_initial(model, tmp_path / "weights.pth")
    assert all(torch.equal(t, donor.network.state_dict()[name]) for name, t in model.network.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module.", "network.", "module.network."])
def test_a_network_whose_own_names_begin_like_a_wrapper(tmp_path, prefix):
    def wrapping():
        inner = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        return Normalized(nn.ModuleDict({"network": inner, "module": nn.Linear(2, 2)}), [0.1], [0.5])

    donor, model = wrapping(), wrapping()
    own = {f"{prefix}{name}": tensor for name, tensor in donor.network.state_dict().items()}
    load_initial(model, save(own, tmp_path / "weights.pth"))
    assert all(torch.equal(t, donor.network.state_dict()[name]) for name, t in model.network.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_zeros_of_torch_s_pruning_stay(tmp_path, donor, model, prefix):
    for index in (0, 11):
        prune.random_unstructured(donor.network[index], "weight", amount=0.5)
    prune.l1_unstructured(donor.network[11], "bias", amount=1)
    state = {f"{prefix}{name}": tensor for name, tensor in donor.network.state_dict().items()}
    (note,) = load_initial(model, save(state, tmp_path / "pruned.pth"))
    assert "torch.nn.utils.prune has pruned: 3;" in note
    for index in (0, 11):
        assert torch.equal(model.network[index].weight, donor.network[index].weight)
        assert (model.network[index].weight == 0).float().mean() == 0.5
    assert (model.network[11].bias == 0).sum() == 1
    state[f"{prefix}0.weight_mask"] = torch.ones(3)
    with pytest.raises(InputError, match=r"0.weight_mask is \(3,\), .*0.weight_orig \("):
        load_initial(model, save(state, tmp_path / "odd.pth"))


class Explosion:
    """Unpickling this creates a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


@pytest.mark.parametrize("writer", [torch.save, lambda value, path: Path(path).write_bytes(pickle.dumps(value))])
def test_pickled_code_is_refused_and_not_run(tmp_path, model, writer):
    mark, path = tmp_path / "mark", tmp_path / "evil.pth"
    writer({"0.weight": Explosion(mark)}, path)
    with pytest.raises(InputError, match="are not loaded") as caught:
        load_initial(model, path)
    assert not mark.exists()
    assert "weights_only=False" not in str(caught.value)
    pickle.loads(path.read_bytes()) if writer is not torch.save else torch.load(path, weights_only=False)
    assert mark.exists(), "the file above was no threat"


def test_other_shapes_are_named(tmp_path, model):
    with pytest.raises(InputError, match=r"10\.weight|11\.weight|12\.weight|\(4,"):
        load_initial(model, save(build(0, classes=4).state_dict(), tmp_path / "four.safetensors"))


def test_a_file_of_another_architecture_names_both(tmp_path, model):
    says = r"does not fit small_cnn: missing .*'0\.weight', .*, unexpected \['conv1\.weight'\]; name .* in `arch`"
    with pytest.raises(InputError, match=says):
        load_initial(model, save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pth"), arch="small_cnn")


def test_other_classes_and_channels_are_named_as_such(tmp_path, model):
    head = dict(build(0, classes=3).network.state_dict())
    head["11.weight"], head["11.bias"] = torch.zeros(4, 128), torch.zeros(4)
    with pytest.raises(InputError, match="trained for 4 classes, the data set has 3"):
        load_initial(model, save(head, tmp_path / "four.pth"))
    stem = {**build(0).network.state_dict(), "0.weight": torch.zeros(32, 3, 3, 3)}
    with pytest.raises(InputError, match=r"0\.weight is \(32, 3, 3, 3\).*images of 3 channels, the data set has 1"):
        load_initial(model, save(stem, tmp_path / "colour.pth"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(tmp_path, donor, model, value):
    state = donor.state_dict()
    state["network.0.weight"].view(-1)[5] = value
    with pytest.raises(InputError, match=r"0\.weight holds NaN or infinity"):
        load_initial(model, save(state, tmp_path / "diverged.pth"))


@pytest.mark.parametrize(
    ("change", "held"),
    [
        (lambda x: (x * 127).to(torch.int8), "int8"),
        (lambda x: x > 0, "bool"),
        (lambda x: x.to(torch.complex64), "complex64"),
        (lambda x: x.to(torch.float8_e4m3fn), "float8"),
        (lambda x: x.to_sparse(), "not dense"),
        (lambda x: x.to("meta"), "not dense"),
    ],
)
def test_weights_that_would_be_copied_as_other_values_are_refused(tmp_path, donor, model, change, held):
    state = donor.network.state_dict()
    torch.save({**state, "0.weight": change(state["0.weight"])}, tmp_path / "quantised.pth")
    with pytest.raises(InputError, match=rf"0\.weight is {held}.*the model has float32"):
        load_initial(model, tmp_path / "quantised.pth")


def test_floats_of_other_widths_and_averages_are_taken(tmp_path, donor, model):
    state = {name: tensor.half() for name, tensor in torch.optim.swa_utils.AveragedModel(donor).state_dict().items()}
    load_initial(model, save(state, tmp_path / "half.pth"))
    expected = donor.network.state_dict()["0.weight"].half().float()
    assert torch.equal(model.network.state_dict()["0.weight"], expected)


@pytest.mark.filterwarnings("ignore")  # of torch.jit
def test_torchscript_is_named(tmp_path, donor, model):
    torch.jit.trace(donor.network, torch.rand(1, 1, 8, 8)).save(str(tmp_path / "script.pt"))
    with pytest.raises(InputError, match=r"it is TorchScript; save the state dict"):
        load_initial(model, tmp_path / "script.pt")


def test_missing_and_unexpected_names_are_named(tmp_path, donor, model):
    state = {name.replace("0.weight", "stem.weight", 1): t for name, t in donor.network.state_dict().items()}
    with pytest.raises(InputError, match=r"missing \['0\.weight'.*unexpected \['.*stem\.weight"):
        load_initial(model, save(state, tmp_path / "other.pth"))


def test_a_refused_file_changes_nothing(tmp_path, model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError):
        load_initial(model, save(build(0, classes=4).state_dict(), tmp_path / "four.pth"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.safetensors", b""),
        ("noise.safetensors", b"\xff" * 64),
        ("empty.pth", b""),
        ("noise.pth", b"not a zip and not a pickle"),
    ],
)
def test_files_that_hold_no_tensors_are_refused_in_one_line(tmp_path, model, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        load_initial(model, tmp_path / name)


@pytest.mark.parametrize("value", [[1, 2], {"epoch": 3}, {"state_dict": {}}, {1: torch.zeros(3)}, torch.zeros(3)])
def test_other_plain_values_are_refused(tmp_path, model, value):
    torch.save(value, tmp_path / "x.pth")
    with pytest.raises(InputError, match="state dict of tensors"):
        load_initial(model, tmp_path / "x.pth")


def test_a_truncated_checkpoint_is_refused(tmp_path, donor, model):
    path = save(donor.state_dict(), tmp_path / "cut.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read"):
        load_initial(model, path)


def test_a_file_that_is_not_there(tmp_path, model):
    with pytest.raises(InputError, match="is not a file"):
        load_initial(model, tmp_path / "nowhere.pth")


def test_a_run_in_the_place_of_its_file(tmp_path, model):
    with pytest.raises(InputError, match=r"is a folder; give the path of a file, for a run .*checkpoint\.safetensors$"):
        load_initial(model, tmp_path)


def parametrised(kind, seed):
    torch.manual_seed(seed)
    return Normalized(nn.Sequential(nn.Flatten(), kind(nn.Linear(6, 4)), nn.ReLU(), nn.Linear(4, 3)), [0.1], [0.5])


KINDS = (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("plain", [False, True])
def test_parametrised_networks_take_originals_and_effective_tensors(tmp_path, kind, plain):
    donor, model = parametrised(kind, 0).eval(), parametrised(kind, 1).eval()
    for _ in range(50):
        donor.network[1].train().weight  # until spectral norm has found the largest singular value
    donor.eval()
    state = (materialised(donor) if plain else donor).state_dict()
    load_initial(model, save(state, tmp_path / "w.safetensors"))
    images = torch.rand(5, 1, 2, 3)
    assert torch.allclose(model(images), donor(images), atol=1e-5)
    assert torch.allclose(model.network[1].weight, donor.network[1].weight, atol=1e-6)


def test_names_of_the_older_weight_norm(tmp_path):
    donor, model = parametrised(KINDS[0], 0), parametrised(KINDS[0], 1)
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = donor.network.state_dict()
    state = {name.replace(name[2:], names.get(name[2:], name[2:])): tensor for name, tensor in state.items()}
    assert "1.weight_g" in state
    load_initial(model, save(state, tmp_path / "w.pth"))
    assert torch.equal(model.network[1].weight, donor.network[1].weight)


def test_names_of_the_older_spectral_norm(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the function is deprecated
        older = nn.Sequential(nn.utils.spectral_norm(nn.Linear(64, 3))).eval()
    path, rows = tmp_path / "weights.pth", torch.rand(2, 64)
    torch.save(older.state_dict(), path)
    newer = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(64, 3))).eval()
    load_state_dict(newer, path)
    assert torch.allclose(newer(rows), older(rows), atol=1e-6)


@pytest.mark.parametrize("names", [("0.weight", "1.weight"), ("0.weight",), ("1.weight",)])
def test_a_shared_tensor_may_have_any_of_its_names(tmp_path, names):
    layers = [nn.Linear(4, 4, bias=False) for _ in range(2)]
    layers[1].weight = layers[0].weight
    value, path = torch.rand(4, 4), tmp_path / "weights.pth"
    torch.save(dict.fromkeys(names, value), path)
    load_state_dict(nn.Sequential(*layers), path)
    assert torch.equal(layers[0].weight, value)
    assert layers[1].weight is layers[0].weight


def test_what_a_parametrization_cannot_hold_is_refused_and_changes_nothing(tmp_path):
    model = parametrised(KINDS[1], 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {**materialised(model).state_dict(), "network.1.weight": torch.full((4, 6), 3.0)}
    with pytest.raises(InputError, match=r"1\.weight cannot take the value given.*originals of the parametrization"):
        load_initial(model, save(state, tmp_path / "w.safetensors"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    nn.utils.parametrize.register_parametrization(model.network[3], "weight", nn.Softplus())
    with pytest.raises(InputError, match=r"3\.weight is parametrised, and cannot be given a value"):
        load_initial(model, save(materialised(model).state_dict(), tmp_path / "w.safetensors"))


def test_layers_that_ask_for_their_version(tmp_path):
    """As torchvision's MNASNet does."""

    class Versioned(nn.Linear):
        _version = 2

        def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest):
            if local_metadata.get("version") != 2:
                raise ValueError
            super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    model = Normalized(nn.Sequential(nn.Flatten(), Versioned(6, 3)), [0.1], [0.5])
    state = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    load_initial(model, save(state, tmp_path / "w.safetensors"))
    assert torch.equal(model.network[1].weight, state["network.1.weight"])
