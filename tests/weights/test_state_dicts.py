"""State dicts of others: every format, other names, everything that does not fit, sizes that are not what they say."""

import io
import re
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import deconvnet
from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.importing.weights import misfits, read_weights, rename

SOURCE = """
from torch import nn
def build():
    net = nn.Sequential()
    net.conv1, net.norm1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    return net
"""


def state():
    generator = torch.Generator().manual_seed(0)
    sizes = {"conv1.weight": (4, 3, 3, 3), "conv1.bias": (4,), "norm1.weight": (4,), "norm1.bias": (4,),
             "norm1.running_mean": (4,), "norm1.running_var": (4,)}
    return {name: torch.rand(size, generator=generator) for name, size in sizes.items()}


def write(folder, ending, content, **how):
    file = folder / f"w{ending}"
    if ending == ".safetensors":
        save_file(content, file)
    elif ending == ".npz":
        (np.savez_compressed if how.get("packed") else np.savez)(file, **{k: v.numpy() for k, v in content.items()})
    else:
        torch.save(content, file, **how)
    return file


@pytest.fixture
def net(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    return f"{tmp_path / 'mine.py'}:build"


@pytest.mark.parametrize(("ending", "how"), [
    (".safetensors", {}), (".npz", {}), (".npz", {"packed": True}), (".pt", {}), (".pth", {}),
    (".pt", {"_use_new_zipfile_serialization": False})])
def test_every_format_gives_the_same(net, tmp_path, ending, how):
    loaded = deconvnet.load_model(net, write(tmp_path, ending, state(), **how))
    for name, value in state().items():
        assert torch.equal(loaded.state_dict()[name], value)


@pytest.mark.parametrize("dtype", [">f4", "<f8", "f2", "<f4"])
def test_other_numbers_are_converted(net, tmp_path, dtype):
    file = tmp_path / "w.npz"
    np.savez(file, **{name: value.numpy().astype(dtype) for name, value in state().items()})
    loaded = deconvnet.load_model(net, file)
    expected = state()["conv1.weight"].numpy().astype(dtype).astype(np.float32)
    assert loaded.conv1.weight.dtype == torch.float32
    assert np.array_equal(loaded.conv1.weight.detach().numpy(), expected)


@pytest.mark.parametrize("wrap", [lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s},
                                  lambda s: {"module." + name: value for name, value in s.items()},
                                  lambda s: {name: nn.Parameter(value) for name, value in s.items()}])
def test_where_checkpoints_keep_it(net, tmp_path, wrap):
    loaded = deconvnet.load_model(net, write(tmp_path, ".pt", wrap(state())))
    assert torch.equal(loaded.conv1.bias, state()["conv1.bias"])


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".pt", ".PT", ".SafeTensors", ".NPZ", ".PTH"])
def test_what_training_on_several_gpus_puts_before_names_is_taken_off(net, tmp_path, ending):
    file = write(tmp_path, ending.lower(), {f"module.{name}": value for name, value in state().items()})
    file = file.rename(file.with_suffix(ending))
    loaded = deconvnet.load_model(net, file)
    assert torch.equal(loaded.conv1.bias, state()["conv1.bias"])
    (tmp_path / "w.yaml").write_text(f'weights: w{ending}\nrename: {{"module.conv1.*": "conv1.*"}}')
    assert torch.equal(deconvnet.load_model(net, tmp_path / "w.yaml").conv1.bias, state()["conv1.bias"])


@pytest.mark.parametrize("before", ["module.", ""])
def test_a_network_that_is_wrapped_itself_gets_its_weights(tmp_path, before):
    (tmp_path / "mine.py").write_text(SOURCE + "\ndef wrapped():\n    return nn.ModuleDict({'module': build()})\n")
    file = write(tmp_path, ".safetensors", {f"{before}{name}": value for name, value in state().items()})
    loaded = deconvnet.load_model(f"{tmp_path / 'mine.py'}:wrapped", file)
    assert torch.equal(loaded.module.conv1.bias, state()["conv1.bias"])


def test_two_tensors_whose_names_differ_by_module_alone_are_refused(net, tmp_path):
    both = {**{f"module.{name}": value for name, value in state().items()}, "conv1.bias": torch.zeros(4)}
    with pytest.raises(DeconvnetError, match=r"w\.pt holds conv1\.bias twice, with module\. before"):
        deconvnet.load_model(net, write(tmp_path, ".pt", both))


# ---- what does not fit ----

def test_everything_that_does_not_fit_is_listed_with_what_comes_near(net, tmp_path):
    content = state()
    content["conv_1.weight"] = content.pop("conv1.weight")
    content["conv1.bias"] = torch.zeros(5)
    content["norm1.weight"] = torch.ones(4, dtype=torch.int64)
    content["norm1.bias"][2] = torch.inf
    content["norm1.running_mean"] = torch.full((4,), 1e300, dtype=torch.float64)
    with pytest.raises(DeconvnetError) as error:
        deconvnet.load_model(net, write(tmp_path, ".safetensors", content))
    for words in ("missing: conv1.weight (4, 3, 3, 3); is it conv_1.weight?", "not in the network: conv_1.weight",
                  "misshapen: conv1.bias is (5,), the network's is (4,)",
                  "of another kind: norm1.weight is int64, the network's is float32",
                  "not finite: norm1.bias", "not finite: norm1.running_mean"):
        assert words in str(error.value)


def test_a_lone_tensor_of_the_shape_is_named_whatever_it_is_called():
    assert misfits({"a": torch.zeros(2, 3)}, {"xyz": torch.zeros(2, 3)})[0] == "missing: a (2, 3); is it xyz?"
    assert misfits({"n.num_batches_tracked": torch.tensor(0)}, {}) == []


class Odd:
    """Tensors that no trainer saves."""

    repeated = torch.zeros(1).expand(4)
    half_repeated = torch.zeros(1, 3, 1, 1).expand(4, 3, 3, 3)
    huge = torch.zeros(1).expand(100_000, 100_000)
    sparse = torch.eye(4).to_sparse()
    meta = torch.zeros(4, device="meta")
    overlapping = torch.zeros(6).as_strided((4, 3), (1, 1))
    complex = torch.zeros(4, dtype=torch.complex64)
    bytes_of_one = torch.zeros(1, dtype=torch.int8).expand(4, 3, 3, 3)


@pytest.mark.parametrize("kind", [name for name in vars(Odd) if not name.startswith("_")])
@pytest.mark.parametrize("name", ["conv1.bias", "conv1.weight"])
def test_odd_tensors_are_refused_by_name(net, tmp_path, kind, name):
    content = {**state(), name: getattr(Odd, kind), f"{name}_scale": torch.ones(4)}
    with pytest.raises(DeconvnetError, match=rf"{name}|cannot be read"):
        deconvnet.load_model(net, write(tmp_path, ".pt", content))


def test_what_is_tied_or_part_of_more_is_fine(net, tmp_path):
    content, whole = state(), torch.rand(40)
    content["conv1.bias"] = content["norm1.bias"] = whole[8:12]
    loaded = deconvnet.load_model(net, write(tmp_path, ".pt", content))
    assert torch.equal(loaded.conv1.bias, whole[8:12])


# ---- archives that are not what they say ----

def test_an_archive_that_unpacks_to_far_more_is_refused(net, tmp_path):
    file = tmp_path / "w.npz"
    np.savez_compressed(file, **{"conv1.weight": np.zeros((1000, 1000, 3), np.float32)})
    with pytest.raises(DeconvnetError, match="announces"):
        read_weights(file)


@pytest.mark.parametrize("shape", ["(4000000000, 1000)", "(2, 4)", "(-1,)", "(4,", "(1e3,)", "()"])
def test_an_array_whose_header_announces_something_else_is_refused(net, tmp_path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        for name, value in state().items():
            out = io.BytesIO()
            np.save(out, value.numpy())
            content = out.getvalue()
            if name == "conv1.bias":
                content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(16)
            archive.writestr(f"{name}.npy", content)
    with pytest.raises(DeconvnetError, match=r"w\.npz"):
        deconvnet.load_model(net, tmp_path / "w.npz")


@pytest.mark.parametrize("dtype", ["U4", "S4", "M8[s]", "V4", [("a", "f4"), ("b", "f4")]])
def test_arrays_of_no_numbers_are_refused(net, tmp_path, dtype):
    np.savez(tmp_path / "w.npz", **{**{k: v.numpy() for k, v in state().items()}, "conv1.bias": np.zeros(4, dtype)})
    with pytest.raises(DeconvnetError, match=r"w\.npz"):
        deconvnet.load_model(net, tmp_path / "w.npz")


# ---- names ----

def names(rules, *given):
    return list(rename(dict.fromkeys(given, torch.zeros(1)), rules))


def test_renaming():
    assert names({}, "a") == ["a"]
    assert names({"module.*": "*"}, "module.conv1.weight", "x") == ["conv1.weight", "x"]
    assert names({"features.0.*": "conv1.*", "features.*.*": "layer*.*"}, "features.0.weight", "features.3.bias") == [
        "conv1.weight", "layer3.bias"]
    assert names({"*.kernel": "*.weight", "out.kernel": "fc.weight"}, "a.kernel", "out.kernel") == [
        "a.weight", "fc.weight"], "a whole name goes first"
    assert names({"ema_*": None}, "ema_a", "a") == ["a"]
    assert names({"a+(b)": "c"}, "a+(b)") == ["c"], "nothing but the star has a meaning"


@pytest.mark.parametrize(("rules", "words"), [
    ({"convl.weight": "a"}, "fits no tensor; did you mean conv1.weight"), ({"xyz": "a"}, "there are conv1.weight"),
    ({"conv1.*": "a"}, "two tensors would be called a"), ({"*.weight": "*.*"}, "no more in ours"),
    ({"*.*.*.*": "a"}, "at most 3 stars"), ({"conv1.bias": "conv1.weight"}, "two tensors")])
def test_rules_that_cannot_be_meant_are_named(rules, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        names(rules, "conv1.weight", "conv1.bias")


def test_a_long_name_does_not_take_long():
    with pytest.raises(UsageError, match="fits no tensor"):
        names({"*a*a*b": "c"}, "a" * 500)
