"""A YAML that lists a network's layers, or says of its weights what their file does not."""

import hashlib
import re
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from squeezenet import DATA
from squeezenet import build as squeezenet
from torch import nn

import deconvnet
from deconvnet import cli
from deconvnet.errors import DeconvnetError, UsageError

NET = """
weights: w.safetensors
preset: zoo-imagenet
size: 32
resize: 36
classes: [one, two, three]
layers:
  - {name: conv1, kind: convolution, stride: [2, 1], padding: 1}
  - {name: norm1, kind: batch_norm, epsilon: 0.001}
  - {name: relu1, kind: relu}
  - {name: pool1, kind: max_pool, kernel: 3, stride: 2, ceil: true}
  - {name: lrn1, kind: lrn, size: 3, alpha: 0.5, k: 2}
  - {name: left, kind: convolution, groups: 2}
  - {name: right, kind: convolution, of: lrn1, padding: 2, dilation: 2}
  - {name: right_relu, kind: relu, slope: 0.1}
  - {name: both, kind: concatenate, of: [left, right_relu]}
  - {name: average, kind: average_pool, kernel: 2, stride: 2, padding: 1}
  - {name: more, kind: convolution, padding: 1}
  - {name: sum, kind: add, of: [average, more]}
  - {name: pooled, kind: global_average_pool}
  - {name: flat, kind: flatten}
  - {name: fc, kind: linear}
"""


class ByHand(nn.Module):
    """The same, in PyTorch's own words."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, (2, 1), 1), nn.BatchNorm2d(8, 0.001)
        self.left, self.right = nn.Conv2d(8, 4, 1, groups=2, bias=False), nn.Conv2d(8, 6, 3, padding=2, dilation=2)
        self.more, self.fc = nn.Conv2d(10, 10, 3, padding=1), nn.Linear(10, 3)
        self.norm1.running_mean.normal_()
        self.norm1.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = nn.functional.relu(self.norm1(self.conv1(x)))
        x = nn.functional.local_response_norm(nn.functional.max_pool2d(x, 3, 2, ceil_mode=True), 3, 0.5, 0.75, 2.0)
        x = torch.cat([self.left(x), nn.functional.leaky_relu(self.right(x), 0.1)], 1)
        x = nn.functional.avg_pool2d(x, 2, 2, 1)
        return self.fc((x + self.more(x)).mean((2, 3)))


@pytest.fixture
def place(tmp_path):
    save_file(ByHand().state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "net.yaml").write_text(NET)
    return tmp_path


def test_a_list_of_layers_is_the_network(place):
    net, images = deconvnet.load_model(str(place / "net.yaml")), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(net(images), ByHand().eval()(images), atol=1e-5)
    assert net.classes == ["one", "two", "three"] and net.preprocess.size == 32 and net.preprocess.resize == 36
    assert net.layers[:3] == ["conv1", "norm1", "relu1"] and not net.training


@pytest.mark.parametrize("ending", [".YAML", ".Yml"])
def test_its_ending_may_be_in_capitals(place, ending):
    net = deconvnet.load_model(str((place / "net.yaml").rename(place / f"net{ending}")))
    assert net.classes == ["one", "two", "three"]


def test_it_goes_through_scan_and_gallery(place, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    (place / "images").mkdir()
    for n in range(5):
        pixels = np.random.default_rng(n).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(place / "images" / f"{n}.png")
    assert cli.main(["scan", "--model", str(place / "net.yaml"), "--images", str(place / "images"), "--out",
                     str(place / "top.safetensors"), "--layers", "conv1,more"]) == 0
    assert cli.main(["gallery", str(place / "top.safetensors"), "--out", str(place / "sheets")]) == 0
    assert (place / "sheets" / "more.png").is_file()


@pytest.mark.parametrize(("old", "new", "words"), [
    ("kind: relu}", "kind: rely}", "layers[2].kind"), ("stride: [2, 1]", "strides: 2", "did you mean stride"),
    ("kind: relu}", "kind: relu, stride: 2}", "stride: no key of relu, which has: slope"),
    ("kernel: 3, stride: 2", "kernel: 3", "needs kernel and stride"), ("of: lrn1", "of: lrn2", "takes lrn2"),
    ("name: left", "name: conv1", "conv1: is there twice"), ("{name: relu1", "{name: a.b", "layers[2].name"),
    ("kind: linear}", "kind: linear, of: [flat, pooled]}", "linear takes one layer"),
    ("name: flat,", "name: image,", "no layer"),
    ("[one, two, three]", "[one, two]", "2 names for a network with 3 outputs"), ("size: 32", "size: 0", "size"),
    ("padding: 2, dil", "padding: 5, dil", "both"), ("weights: w", "weight: w", "did you mean weights"),
    ("weights: w.safetensors", "weights: v.safetensors", "no weights file"), ("groups: 2", "groups: 3", "left"),
    ("weights: w.safetensors", "weights: ../w.safetensors", "same folder"),
    ("weights: w.safetensors", "weights: w.safetensors\nnetwork: zfnet", "say one of them"),
    ("weights: w.safetensors", "weights: w.safetensors\nlayout: hwio", "layout"),
    ("preset: zoo-imagenet", "sha256: aa", "SHA-256"), ("weights: w.safetensors\n", "", "name their file"),
    ("size: 32", "size: 32\nchannels: BGR\nmean: [1, 2]",
     "1 error\n  mean: must be a number for each channel in square brackets, three of them, or one"),
    ("size: 32", "size: 32\nstd: 0.5", "std: must be a number for each channel"),
    ("kernel: 3, stride: 2", "kernel: [3, 3, 3], stride: 2",
     "1 error\n  layers[3].kernel: must be a whole number from 1 to 4096, or two in square brackets: [y, x], found [3"),
    ("padding: 1}", "padding: 5000}", "layers[0].padding: must be a whole number from 0 to 4096"),
    ("of: lrn1", "of: 3", "layers[6].of: must be the name of a layer above, or a list"),
    ("[one, two, three]", "3", "classes: must be a list of names, or the name of a text file"),
    ("layers:\n", "rename: {'*': null}\nlayers: []\nlist:\n", "layers: tuple should have at least 1"),
    ("groups: 2", "groups: 1", "with weights (4, 4, 1, 1)"),
])
def test_what_is_wrong_in_it_is_named(place, old, new, words):
    assert old in NET
    (place / "net.yaml").write_text(NET.replace(old, new, 1))
    with pytest.raises(DeconvnetError, match=re.escape(words)) as error:
        deconvnet.load_model(str(place / "net.yaml"))
    assert "net.yaml" in str(error.value)


def test_a_list_whose_only_layer_is_wrong_is_not_said_to_be_too_short(place):
    (place / "net.yaml").write_text("layers: [{name: a, kind: max_pool, kernel: [1, 2, 3], stride: 2}]")
    with pytest.raises(UsageError, match=r"1 error\n  layers\[0\]\.kernel: must be"):
        deconvnet.load_model(str(place / "net.yaml"))


def test_all_weights_that_do_not_fit_are_listed(place):
    state = ByHand().state_dict()
    state["conv_1.weight"] = state.pop("conv1.weight")
    state |= {"fc.weight": torch.zeros(3, 10, 1), "norm1.bias": torch.zeros(9), "more.bias": torch.zeros(10).int()}
    save_file(state, place / "w.safetensors")
    with pytest.raises(DeconvnetError) as error:
        deconvnet.load_model(str(place / "net.yaml"))
    for words in ("missing: conv1.weight; is it conv_1.weight?", "not in the network: conv_1.weight (8, 3, 3, 3)",
                  "misshapen: fc.weight is (3, 10, 1), and should be (units, values)",
                  "misshapen: norm1.bias is (9,), and should be (8,)", "of another kind: more.bias"):
        assert words in str(error.value)


def test_weights_that_are_not_finite_are_refused(place):
    state = ByHand().state_dict()
    state["more.bias"][0] = torch.nan
    save_file(state, place / "w.safetensors")
    with pytest.raises(DeconvnetError, match=r"NaN or infinity among the weights: more\.bias"):
        deconvnet.load_model(str(place / "net.yaml"))


def test_blue_first_is_turned(place):
    (place / "net.yaml").write_text(NET.replace("preset: zoo-imagenet", "preset: caffe"))
    net, images = deconvnet.load_model(str(place / "net.yaml")), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(net(images.flip(1)), ByHand().eval()(images), atol=1e-5)
    assert net.preprocess.mean == pytest.approx((123 / 255, 117 / 255, 104 / 255))


def test_one_number_for_a_mean_is_a_network_of_grey(tmp_path):
    save_file({"conv1.weight": torch.rand(4, 1, 3, 3)}, tmp_path / "w.safetensors")
    (tmp_path / "net.yaml").write_text("weights: w.safetensors\nsize: 28\nmean: [0.13]\nstd: [0.31]\n"
                                       "layers: [{name: conv1, kind: convolution}]")
    net = deconvnet.load_model(str(tmp_path / "net.yaml"))
    assert net(net.preprocess(Image.new("RGB", (40, 40), (9, 80, 200)))[None]).shape == (1, 4, 26, 26)
    (tmp_path / "net.yaml").write_text((tmp_path / "net.yaml").read_text().replace("std: [0.31]", "std: [1, 1, 1]"))
    with pytest.raises(UsageError, match=r"net\.yaml: mean and std"):
        deconvnet.load_model(str(tmp_path / "net.yaml"))


# ---- for networks that are code, or ours ----

MINE = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(3)
    def forward(self, x):
        return self.conv1(x) + self.conv2(x)
def build():
    return Net()
def normed():
    net = Net()
    net.forward = lambda x: net.conv1(net.norm(x))
    return net
"""


def test_a_yaml_renames_and_turns_for_a_network_that_is_code(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    own = deconvnet.load_model(f"{tmp_path / 'mine.py'}:build")
    theirs = {name.replace("conv", "features."): torch.rand_like(value) if value.is_floating_point() else value
              for name, value in own.state_dict().items()}
    torch.save({"model": theirs}, tmp_path / "theirs.pth")
    yaml = tmp_path / "theirs.yaml"
    yaml.write_text('weights: theirs.pth\nrename: {"features.*": "conv*"}\npreset: caffe-vgg\nsize: 64\nclasses: [a]')
    net = deconvnet.load_model(f"{tmp_path / 'mine.py'}:build", yaml)
    assert torch.equal(net.conv2.weight, theirs["features.2.weight"].flip(1)), "both take the image"
    assert net.preprocess.size == 64 and net.preprocess.mean[0] == pytest.approx(123.68 / 255) and net.classes == ["a"]
    yaml.write_text('weights: theirs.pth\nrename: {"features.*": "conv*"}')
    net = deconvnet.load_model(f"{tmp_path / 'mine.py'}:build", yaml)
    assert torch.equal(net.conv2.weight, theirs["features.2.weight"]) and net.preprocess.size == 224
    yaml.write_text('weights: theirs.pth\nrename: {"features.*": "conv*"}\nchannels: BGR')
    with pytest.raises(DeconvnetError, match="straight into convolutions"):
        deconvnet.load_model(f"{tmp_path / 'mine.py'}:normed", yaml)


@pytest.mark.parametrize(("own", "text", "words"), [
    ("net.preprocess = Preprocess(64, 64)", "preset: caffe", r"w\.yaml says how images are made, .* net\.preprocess"),
    ("net.classes = ['a', 'b']", "classes: [b, a]", r"w\.yaml says what its classes are, .* net\.classes"),
    ("net.preprocess = Preprocess(64, 64)", "size: 64\nresize: 64", None),
    ("net.classes = ('a', 'b')", "classes: [a, b]", None), ("net.preprocess = Preprocess(64, 64)", "", None)])
def test_a_yaml_that_contradicts_the_network_is_refused(tmp_path, own, text, words):
    (tmp_path / "mine.py").write_text("from torch import nn\nfrom deconvnet.images import Preprocess\ndef build():\n"
                                      f"    net = nn.Sequential(nn.Conv2d(3, 2, 3))\n    {own}\n    return net\n")
    save_file({"0.weight": torch.ones(2, 3, 3, 3), "0.bias": torch.zeros(2)}, tmp_path / "w.safetensors")
    (tmp_path / "w.yaml").write_text(f"weights: w.safetensors\n{text}\n")
    with pytest.raises(UsageError, match=words) if words else nullcontext():
        deconvnet.load_model(f"{tmp_path / 'mine.py'}:build", tmp_path / "w.yaml")


def test_a_yaml_names_a_network_of_ours(tmp_path):
    net = deconvnet.load_model("alexnet")
    net.conv1.weight.data += 1
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "a.yaml").write_text(f"network: alexnet\nweights: w.safetensors\n"
                                     f"sha256: {hashlib.sha256((tmp_path / 'w.safetensors').read_bytes()).hexdigest()}")
    found = deconvnet.load_model(str(tmp_path / "a.yaml"))
    assert torch.equal(found.conv1.weight, net.conv1.weight) and found.preprocess.size == 227
    with pytest.raises(UsageError, match="says what network it is"):
        deconvnet.load_model("alexnet", tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("weights: w.safetensors")
    with pytest.raises(UsageError, match="goes with --weights"):
        deconvnet.load_model(str(tmp_path / "a.yaml"))
    for weights in (None, "DEFAULT"):
        (tmp_path / "a.yaml").write_text("network: torchvision:alexnet\n" + ("" if weights else "weights: DEFAULT"))
        with pytest.raises(UsageError, match="--model torchvision:alexnet --weights DEFAULT, without the YAML"):
            deconvnet.load_model(str(tmp_path / "a.yaml"), weights)
    (tmp_path / "a.yaml").write_text("network: mine.py:build\nweights: w.safetensors")
    with pytest.raises(UsageError, match="command line alone"):
        deconvnet.load_model(str(tmp_path / "a.yaml"))


# ---- the networks at hand ----

def at_hand(name):
    return pytest.mark.skipif(not (DATA / name).is_dir(), reason=f"needs {name} beside the checkout")


@at_hand("tinyvgg")
def test_a_network_of_keras_gives_what_its_readme_states():
    net = deconvnet.load_model("configs/networks/tinyvgg.yaml", DATA / "tinyvgg/tinyvgg.npz")
    names = {"boat": "lifeboat", "bug": "ladybug", "bus": "school_bus", "car": "sport_car", "panda": "red_panda",
             "pepper": "bell_pepper"}
    right = 0
    for file in sorted((DATA / "tinyvgg/img").glob("*.jpeg")):
        word = file.stem.partition("_")[0]
        with torch.no_grad(), Image.open(file) as image:
            first = net.classes[int(net(net.preprocess(image)[None]).argmax())]
        right += first == names.get(word, word)
    assert right == 14


@at_hand("squeezenet")
def test_squeezenet_as_layers_is_squeezenet_as_code():
    net, code = (deconvnet.load_model("configs/networks/squeezenet.yaml",
                                      DATA / "squeezenet/squeezenet_v1.0_chain_rgb.npz"), squeezenet().eval())
    images = torch.randn(1, 3, 227, 227) * 60
    with torch.no_grad():
        assert torch.equal(net(images), code(images))
    assert net.classes == code.classes
    assert (net.preprocess.mean, net.preprocess.std) == (code.preprocess.mean, code.preprocess.std)


@at_hand("vgg16_conv3_3")
def test_vgg_takes_red_first():
    net = deconvnet.load_model("configs/networks/vgg16_conv3_3.yaml", DATA / "vgg16_conv3_3/vgg16_conv3_3.npz")
    with np.load(DATA / "vgg16_conv3_3/vgg16_conv3_3.npz", allow_pickle=False) as raw:
        assert np.array_equal(net.conv1_1.weight.detach().numpy(), raw["conv1_1.weight"][:, ::-1])
    assert net.preprocess.mean == pytest.approx((123.68 / 255, 116.779 / 255, 103.939 / 255))


def test_pictures_may_be_stretched(place):
    """Both sides to 36 and the centre, whatever the shape: of a picture in stripes, stripes of other widths."""
    (place / "net.yaml").write_text(NET.replace("resize: 36", "resize: 36\nstretch: true"))
    net = deconvnet.load_model(str(place / "net.yaml"))
    pixels = np.zeros((36, 72, 3), np.uint8)
    pixels[:, ::2] = pixels[:, 1::2] = np.arange(36, dtype=np.uint8)[None, :, None] * 7
    found = np.asarray(net.preprocess.view(Image.fromarray(pixels)))[..., 0].astype(int)
    assert found.shape == (32, 32) and np.abs(found - np.arange(2, 34) * 7).max() <= 2
    assert net.preprocess.settings()["stretch"] is True
    plain = deconvnet.images.Preprocess(32, 36)
    assert "stretch" not in plain.settings() and plain != deconvnet.images.Preprocess(32, 36, stretch=True)
