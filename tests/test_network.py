"""Networks by name, and weights that do not fit, are damaged, or would run code."""

import hashlib
import json
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import deconvnet
from deconvnet import models
from deconvnet.describe import fingerprint
from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.images import Preprocess

SOURCE = """
from collections import OrderedDict
from torch import nn
from beside import WIDTH

def build():
    return nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, WIDTH, 3), relu1=nn.ReLU()))

def broken():
    raise ValueError("out of filters")

def number():
    return 7
"""


@pytest.fixture
def source(tmp_path):
    (tmp_path / "beside.py").write_text("WIDTH = 4")
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path / "mine.py"


@pytest.fixture
def state():
    return OrderedDict([("conv1.weight", torch.randn(4, 3, 3, 3)), ("conv1.bias", torch.randn(4))])


def test_a_network_of_ones_own_from_a_file(source):
    net = deconvnet.load_model(f"{source}:build")
    assert not net.training and net.layers == ["conv1", "relu1"] and net.classes == []
    assert net.preprocess(Image.new("RGB", (300, 260))).shape == (3, 224, 224)


def test_a_network_keeps_what_its_author_set(source):
    source.write_text(SOURCE + "\ndef named():\n    net = build()\n    net.classes = ['cat', 'dog']\n    return net\n")
    assert deconvnet.load_model(f"{source}:named").classes == ["cat", "dog"]


@pytest.mark.parametrize("name, layer", [
    ("torchvision:resnet18", "layer1.0.relu"), ("torchvision:googlenet", "conv1.conv"), ("torch.nn:Identity", None),
    ("alexnet_dense", "norm1"),
])
def test_networks_by_name(name, layer):
    net = deconvnet.load_model(name)
    assert not net.training and (layer is None or layer in net.layers)


def test_without_weights_the_same_call_gives_the_same_network():
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        made.append(fingerprint(deconvnet.load_model("alexnet")))
        assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are the caller's"
    assert made[0] == made[1]


def test_alexnet_sees_227_pixels():
    assert deconvnet.load_model("alexnet").preprocess.size == 227


@pytest.mark.parametrize("name, words", [
    ("zfnt", "Did you mean 'zfnet'"), ("torchvision:resnet81", "resnet18"), ("torchvision:", "no model"),
    ("nowhere.py:build", "no file"), ("no.such.module:build", "cannot be imported"),
    ("torch.nn:Linearr", "Did you mean 'Linear'"), ("mine.py", "mine.py:build"),
    ("vgg16", "Did you mean 'torchvision:vgg16'"), ("net.caffemodel", "python -m deconvnet.caffe"),
    ("w.safetensors", "go with --weights"),
])
def test_a_name_that_does_not_exist_says_what_does(name, words):
    with pytest.raises(UsageError, match=words):
        deconvnet.load_model(name)


def test_weights_that_do_not_exist_say_which_ship():
    with pytest.raises(UsageError, match=r"no weights file epoch-03\. With zfnet ship demo, epoch-01, epoch-02"):
        deconvnet.load_model("zfnet", "epoch-03")


def test_a_module_in_the_current_folder_is_found(source, monkeypatch):
    source.rename(source.with_name("mine_as_a_module.py"))
    monkeypatch.chdir(source.parent)
    assert deconvnet.load_model("mine_as_a_module:build").layers == ["conv1", "relu1"]


@pytest.mark.parametrize("function, words", [("broken", "out of filters"), ("number", "returned a int")])
def test_a_builder_that_fails_is_named(source, function, words):
    with pytest.raises(DeconvnetError, match=words):
        deconvnet.load_model(f"{source}:{function}")


def test_a_file_that_cannot_be_imported_is_named(source):
    source.write_text("def build(:")
    with pytest.raises(DeconvnetError, match=r"mine\.py cannot be imported: SyntaxError"):
        deconvnet.load_model(f"{source}:build")


@pytest.mark.parametrize("ending", ["safetensors", "pt", "pth", "checkpoint.pth"])
def test_weights_by_file(source, state, tmp_path, ending):
    file = tmp_path / f"weights.{ending}"
    if ending == "safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state, "epoch": 3} if "checkpoint" in ending else state, file)
    net = deconvnet.load_model(f"{source}:build", file)
    assert torch.equal(net.conv1.weight, state["conv1.weight"])


def test_every_misfit_is_listed_at_once(source, state, tmp_path):
    del state["conv1.bias"]
    state["conv1.weight"] = torch.zeros(4, 3, 5, 5)
    state["conv9.weight"] = torch.zeros(2)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(DeconvnetError) as error:
        deconvnet.load_model(f"{source}:build", tmp_path / "w.safetensors")
    for words in ("missing: conv1.bias (4,)", "not in the network: conv9.weight (2,)",
                  "misshapen: conv1.weight is (4, 3, 5, 5), the network's is (4, 3, 3, 3)", "w.safetensors"):
        assert words in str(error.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(source, state, tmp_path, bad):
    state["conv1.weight"][2, 1, 0, 0] = bad
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(DeconvnetError, match=r"not finite: conv1\.weight"):
        deconvnet.load_model(f"{source}:build", tmp_path / "w.safetensors")


def test_a_huge_tensor_of_few_bytes_is_refused_by_its_shape(source, state, tmp_path):
    state["conv1.weight"] = torch.zeros(1).expand(100_000, 100_000)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(DeconvnetError, match="misshapen"):
        deconvnet.load_model(f"{source}:build", tmp_path / "w.pt")


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_weights_are_refused(source, state, tmp_path, ending, share):
    file = tmp_path / f"w.{ending}"
    save_file(state, file) if ending == "safetensors" else torch.save(state, file)
    whole = file.read_bytes()
    file.write_bytes(whole[:int(len(whole) * share)])
    with pytest.raises(DeconvnetError, match=r"w\.(safetensors|pt)"):
        deconvnet.load_model(f"{source}:build", file)


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return exec, (f"open({self.target!r}, 'w').close()",)


@pytest.mark.parametrize("form", ["pickle", "torch", "legacy", "nested"])
def test_weights_never_run_code(source, tmp_path, form):
    canary, file = tmp_path / "canary", tmp_path / "evil.pth"
    if form == "pickle":
        file.write_bytes(pickle.dumps(Payload(canary)))
    else:
        content = {"state_dict": {"conv1.weight": Payload(canary)}} if form == "nested" else Payload(canary)
        torch.save(content, file, _use_new_zipfile_serialization=form != "legacy")
    with pytest.raises(DeconvnetError, match="without running code"):
        deconvnet.load_model(f"{source}:build", file)
    assert not canary.exists()
    torch.load(file, weights_only=False) if form != "pickle" else pickle.loads(file.read_bytes())
    assert canary.exists(), "the payload must bite, or this test shows nothing"


@pytest.mark.parametrize("name", ["w.bin", "w.npy", "w"])
def test_other_weight_files_are_refused(source, tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UsageError, match="safetensors"):
        deconvnet.load_model(f"{source}:build", tmp_path / name)


@pytest.mark.parametrize("ending", ["json", "JSON"])
def test_the_card_beside_the_weights_gives_classes_and_preprocessing(source, state, tmp_path, ending):
    save_file(state, tmp_path / "w.safetensors")
    card = {"classes": ["a", "b"], "preprocess": {"size": 64, "resize": 70, "mean": [0, 0, 0], "std": [1, 1, 1]}}
    (tmp_path / f"w.{ending}").write_text(json.dumps(card))
    net = deconvnet.load_model(f"{source}:build", tmp_path / "w.safetensors")
    assert net.classes == ["a", "b"] and net.preprocess == Preprocess(64, 70, (0, 0, 0), (1, 1, 1))


def test_weights_that_changed_since_their_card_are_refused(source, state, tmp_path):
    save_file(state, tmp_path / "w.safetensors")
    (tmp_path / "w.json").write_text(json.dumps({"sha256": "0" * 64}))
    with pytest.raises(DeconvnetError, match="damaged, or another: its SHA-256"):
        deconvnet.load_model(f"{source}:build", tmp_path / "w.safetensors")


@pytest.mark.parametrize("text", [
    "{", "[1]", "[" * 100_000, '{"classes": 5}', '{"classes": "abc"}', '{"classes": [1, 2]}', '{"arguments": [1]}',
    '{"preprocess": null}', '{"preprocess": {"size": 300, "resize": 200}}', '{"preprocess": {"size": 10.5}}',
    '{"preprocess": {"size": "a"}}', '{"preprocess": {"mean": 5}}', '{"preprocess": {"mean_picture_sha256": "0"}}',
    '{"preprocess": {"much": 5}}'], ids=lambda text: text[:40])
def test_a_card_that_is_no_card_is_named(source, state, tmp_path, text):
    save_file(state, tmp_path / "w.safetensors")
    (tmp_path / "w.json").write_text(text)
    with pytest.raises(DeconvnetError, match=r"w\.json"):
        deconvnet.load_model(f"{source}:build", tmp_path / "w.safetensors")


def test_demo_weights_exist_only_where_they_ship():
    with pytest.raises(UsageError, match="No demo weights ship for 'alexnet'"):
        deconvnet.load_model("alexnet", "demo")
    with pytest.raises(UsageError, match="no weights file"):
        deconvnet.load_model("zfnet", "nowhere.safetensors")


def test_the_network_that_ships():
    net = deconvnet.load_model("zfnet", weights="demo")
    widths = [net.get_submodule(f"conv{n}").out_channels for n in range(1, 6)]
    assert widths == [96, 256, 384, 384, 256] and isinstance(net.norm1, nn.LocalResponseNorm)
    assert len(net.classes) == net.fc8.out_features
    picture = Image.fromarray(np.full((300, 300, 3), 90, np.uint8))
    with torch.no_grad():
        assert torch.isfinite(net(net.preprocess(picture)[None])).all()


SHIPPED = Path(models.__file__).parent / "weights"


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.safetensors")), ids=lambda file: file.stem)
def test_what_ships_is_small_and_loads_with_its_card(file):
    card = json.loads(file.with_suffix(".json").read_text())
    net = deconvnet.load_model(card["network"], weights=file.stem.removeprefix(f"{card['network']}_"))
    assert file.stat().st_size <= 16_000_000 and card["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    side = net.preprocess.size
    assert len(net.classes) == 96 and side == (227 if "alexnet" in file.stem else 224)
    with torch.no_grad():
        assert torch.isfinite(net(torch.randn(1, 3, side, side))).all()


def test_the_way_to_the_network_that_ships_leads_to_it():
    def filters(weights):
        return deconvnet.load_model("zfnet", weights).conv2.weight.detach().flatten(1)

    last, epochs = filters("demo"), (1, 2, 5, 10, 20, 30, 40, 64)
    likeness = [float(F.cosine_similarity(filters(f"epoch-{n:02}"), last).mean()) for n in epochs]
    assert likeness == sorted(likeness) and likeness[0] < 0.9 and likeness[-1] > 0.98


def test_the_fingerprint_is_of_names_and_values(source):
    net = deconvnet.load_model(f"{source}:build")
    before = fingerprint(net)
    assert fingerprint(net) == before
    with torch.no_grad():
        net.conv1.bias[0] += 1
    assert fingerprint(net) != before
