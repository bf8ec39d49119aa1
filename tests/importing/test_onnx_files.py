"""What is said of an ONNX file: what is refused and why, what its layers are called, and what stands in the YAML."""

import shutil
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx_files import difference, elsewhere, light, model, node, saved, with_outputs
from PIL import Image
from torch import nn

import deconvnet
from deconvnet.cli import main
from deconvnet.describe import describe, fingerprint
from deconvnet.errors import DeconvnetError, UsageError

pytestmark = pytest.mark.usefixtures("one_thread")

RANDOM = np.random.default_rng(0)


def normal(*shape):
    return RANDOM.normal(0, 1, shape).astype("f")


def i64(*values):
    return np.array(values, "int64")


def load(made, folder):
    return deconvnet.load_model(str(saved(made, folder)))


def small(size=12, **keywords):
    """Two convolutions, a pooling and a fully connected layer."""
    random = np.random.default_rng(1)
    weights = {name: random.normal(0, 0.3, shape).astype("f") for name, shape in
               (("w", (4, 3, 3, 3)), ("v", (5, 4, 3, 3)), ("g", (2, 5)))}
    return model([node("Conv", "x w", "conv1", strides=[2, 2], name="conv1"), node("Relu", "conv1", "relu1"),
                  node("MaxPool", "relu1", "pool1", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1]),
                  node("Conv", "pool1 v", "conv2", pads=[1, 1, 1, 1]), node("GlobalAveragePool", "conv2", "mean"),
                  node("Flatten", "mean", "flat"), node("Gemm", "flat g", "fc", transB=1)],
                 [1, 3, size, size], weights, output="fc", rank=2, **keywords)


# ---- what is refused -------------------------------------------------------------------------------------------------

def edited(change, made=None):
    """A model after ``change(model)``."""
    made = made or small()
    change(made)
    return made


def with_external(made):
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def with_external_in_a_node(made):
    tensor = helper.make_tensor("c", TensorProto.FLOAT, [1], [1.0])
    tensor.external_data.add(key="location", value="/etc/passwd")
    made.graph.node.append(node("Constant", "", "c", value=tensor))


def with_branch(made):
    inner = helper.make_graph([node("Relu", "fc", "z")], "inner", [], [
        helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 2])])
    made.graph.node.append(node("If", "fc", "z", then_branch=inner, else_branch=inner))


def with_sparse(made):
    made.graph.sparse_initializer.add(dims=[4])


def with_value(made, value):
    made.graph.initializer[0].raw_data = np.full(4 * 3 * 3 * 3, value, "f").tobytes()


def set_attribute(number, name, value):
    def change(made):
        kept = [a for a in made.graph.node[number].attribute if a.name != name]
        del made.graph.node[number].attribute[:]
        made.graph.node[number].attribute.extend([*kept, helper.make_attribute(name, value)])
    return change


def second_input(made):
    made.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))


def of_type(kind):
    def change(made):
        made.graph.input[0].type.tensor_type.elem_type = kind
    return change


def single(kind, inputs="x", shape=(1, 3, 8, 8), weights=(), rank=4, opset=17, **attributes):
    return model([node(kind, inputs, **attributes)], list(shape), dict(weights), opset, rank=rank)


OPEN = ["N", 3, "height", "width"]
REFUSED = {
    "all missing operations": (lambda: model(
        [node("Gelu", "x", "a"), node("Erf", "a", "b"), helper.make_node("Fused", ["b"], ["y"], domain="com.else")],
        [1, 3, 8, 8], opset=20), "operations that deconvnet does not run: Erf, Gelu, com.else.Fused"),
    "branches": (lambda: edited(with_branch), "does not run: If"),
    "sequences": (lambda: single("SequenceConstruct"), "does not run: SequenceConstruct"),
    "weights elsewhere": (lambda: edited(with_external), "keeps weights in other files.*onnx.save"),
    "a constant elsewhere": (lambda: edited(with_external_in_a_node), "keeps weights in other files"),
    "sparse weights": (lambda: edited(with_sparse), "sparse weights"),
    "nodes in no order": (lambda: edited(lambda made: made.graph.node.reverse()), "not a sound ONNX model.*sorted"),
    "a circle": (lambda: edited(lambda made: made.graph.node[0].input.__setitem__(0, "relu1")), "not a sound"),
    "a name twice": (lambda: edited(lambda made: made.graph.node[1].output.__setitem__(0, "conv1")), "not a sound"),
    "the future": (lambda: edited(lambda made: setattr(made, "ir_version", 99)), "format 99.*pip install -U onnx"),
    "an operation of the future": (lambda: edited(lambda made: setattr(made.opset_import[0], "version", 999)),
                                   "newer than version .*pip install -U onnx"),
    "an attribute nobody knows": (lambda: edited(set_attribute(1, "slope", 0.5)), "not a sound.*slope"),
    "two inputs": (lambda: edited(second_input), "takes 2 inputs"),
    "half precision": (lambda: edited(lambda made: made.graph.output[0].type.tensor_type.__setattr__("elem_type", 10),
                                      edited(of_type(TensorProto.FLOAT16), single("Relu"))), "takes FLOAT16"),
    "sounds": (lambda: single("Relu", shape=(1, 3, 8), rank=3), r"images are \(N, C, H, W\)"),
    "channels last": (lambda: single("Transpose", shape=(1, 8, 8, 3), perm=[0, 3, 1, 2]), "8 channels"),
    "not a square": (lambda: single("Relu", shape=(1, 3, 8, 9)), "8×9 pixels"),
    "five channels": (lambda: single("Relu", shape=(1, 5, 8, 8)), "5 channels; pictures have 3, or 1"),
    "infinite weights": (lambda: edited(lambda made: with_value(made, np.inf)), "NaN or infinity among.*conv1.weight"),
    "weights that are no numbers": (lambda: edited(lambda made: with_value(made, np.nan)), "NaN or infinity"),
    "weights from the image": (lambda: single("Conv", "x x", kernel_shape=[8, 8]), "depends on the image"),
    "an even normalisation": (lambda: single("LRN", size=4), "over an odd number"),
    "a normalisation by nothing": (lambda: single("LRN", size=3, alpha=0.0), "alpha and beta above 0"),
    "a normalisation by no number": (lambda: single("LRN", size=3, beta=float("nan")), "alpha and beta above 0"),
    "a window beside the map": (lambda: single("MaxPool", kernel_shape=[2, 2], pads=[0, 0, 2, 0]), "without a cell"),
    "statistics of the batch": (lambda: model([node("BatchNormalization", "x s s s s", "y a b", training_mode=1)],
                                              [1, 3, 8, 8], {"s": np.ones(3, "f")}), "not in evaluation mode"),
    "dropping at random": (lambda: single("Dropout", "x r t", weights={"r": np.float32(0.5), "t": np.array(True)}),
                           "in training mode"),
    "a mask that is used": (lambda: model([node("Dropout", "x", "a m"), node("Cast", "m", to=1)], [1, 3, 8, 8]),
                            "only its first output"),
    "positions of maxima": (lambda: model([node("MaxPool", "x", "a b", kernel_shape=[2, 2]), node("Cast", "b", to=1)],
                                          [1, 3, 8, 8]), "only its first output"),
    "a sound's pooling": (lambda: single("AveragePool", kernel_shape=[2, 2], dilations=[2, 2], opset=19), "gaps"),
    "a stride of nothing": (lambda: edited(set_attribute(0, "strides", [0, 1])), "net.onnx"),
    "negative padding": (lambda: edited(set_attribute(0, "pads", [0, 0, -1, 0])), "net.onnx"),
    "no groups": (lambda: edited(set_attribute(0, "group", 0)), "net.onnx"),
    "endless padding": (lambda: edited(set_attribute(0, "pads", [10**6] * 4)), "would make values of"),
    "an endless constant": (lambda: model([node("ConstantOfShape", "s", "c"), node("Add", "x c")], OPEN,
                                          {"s": i64(10**6, 10**6)}), r"a constant of \[1000000, 1000000\]"),
    "constants that grow": (lambda: model([node("MatMul", "c d", "e"), node("Add", "x e")], OPEN, {
        "c": np.ones((10**5, 1), "f"), "d": np.ones((1, 10**5), "f")}), "would make values of"),
    "a product that grows": (lambda: model([node("Gather", "c i", "e", axis=0), node("Add", "x e")], OPEN, {
        "c": np.ones((2, 10**5), "f"), "i": np.zeros(10**4, "int64")}), "would make"),
    "images that are mixed": (lambda: single("Transpose", perm=[1, 0, 2, 3]), "keep the images of a batch apart"),
    "one image of many": (lambda: single("Gather", "x i", weights={"i": i64(0)}), "keep the images of a batch apart"),
    "chances across images": (lambda: single("Softmax", axis=0), "across the images of a batch"),
    "rows across images": (lambda: single("Reshape", "x s", weights={"s": i64(3, -1)}, rank=2), "keep the images"),
    "a row too many": (lambda: single("Reshape", "x s", weights={"s": i64(-1, 64)}, rank=2), "not a row for each"),
    "a batch within": (lambda: model([node("Reshape", "x s", "a"), node("Reshape", "a t")], [1, 3, 8, 8], {
        "s": i64(-1, 64), "t": i64(1, -1)}, rank=2), "not read as a batch"),
    "no image": (lambda: model([node("ConstantOfShape", "s", "c"), node("Relu", "c")], [1, 3, 8, 8],
                               {"s": i64(1, 2)}, rank=2), "does not depend on the images"),
    "what does not fit": (lambda: edited(lambda made: made.graph.input[0].type.tensor_type.shape.dim[1].
                                         __setattr__("dim_value", 4)), "net.onnx"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_with_the_reason(tmp_path, what):
    make, words = REFUSED[what]
    made = make()
    with pytest.raises(DeconvnetError, match=f"(?s).*{words}") as caught:
        load(made, tmp_path)
    assert "net.onnx" in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 700


def test_nothing_else_is_opened(tmp_path, monkeypatch):
    """A file that names others is refused before any of them is looked at."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "weights").write_bytes(bytes(432))
    made = edited(with_external)
    made.graph.initializer[0].external_data[0].value = "../weights"
    file, opened = saved(made, tmp_path / "inner"), []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    with pytest.raises(DeconvnetError, match="other files"):
        deconvnet.load_model(str(file))
    assert any("net.onnx" in path for path in opened) and not any(path.endswith("weights") for path in opened)


def test_what_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"There is no file .*none\.onnx"):
        deconvnet.load_model(str(tmp_path / "none.onnx"))
    with pytest.raises(UsageError, match="leave --weights out"):
        deconvnet.load_model(str(saved(small(), tmp_path)), weights="demo")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"pip install 'deconvnet\[onnx\]'"):
        deconvnet.load_model(str(tmp_path / "net.onnx"))


def test_a_file_of_more_than_protobuf_reads(tmp_path):
    path = tmp_path / "net.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)  # takes no room on the disk
    with pytest.raises(DeconvnetError, match="larger than 2 GiB"):
        deconvnet.load_model(str(path))


# ---- what layers are called ------------------------------------------------------------------------------------------

def test_names_are_the_files_own_and_safe(tmp_path):
    named = [("/features/features.0/Conv", "a/1"), ("a.b,c:d#e", "b"), ("", "gpu_0/conv1_1"), ("conv", "c"),
             ("conv", "d"), ("forward", "e"), ("layers", "f"), ("../..", "g"), ("x" * 300, "h"), ("été", "y")]
    nodes = [node("Relu", last, output, name=name) for (name, output), last in
             zip(named, ["x", *(output for _, output in named)], strict=False)]
    net = load(model(nodes, [1, 3, 8, 8]), tmp_path)
    assert [path for path, _ in net.named_modules() if path] == [
        "features_features_0_Conv", "a_b_c_d_e", "gpu_0_conv1_1", "conv", "conv_2", "forward_", "layers_", "Relu",
        "x" * 80, "t"] == net.layers
    assert [row.name for row in describe(net, (8, 8))] == net.layers


def test_a_network_is_made_of_torchs_own_modules(tmp_path):
    net = load(small(), tmp_path)
    kinds = [(name, type(module)) for name, module in net.named_modules() if name]
    assert kinds == [("conv1", nn.Conv2d), ("relu1", nn.ReLU), ("pool1", type(net.pool1)), ("conv2", nn.Conv2d),
                     ("mean", nn.AdaptiveAvgPool2d), ("flat", nn.Flatten), ("fc", nn.Linear)]
    assert isinstance(net.pool1, nn.MaxPool2d) and not net.training and net.preprocess.size == 12
    assert sum(p.numel() for p in net.parameters()) == 4 * 27 + 5 * 36 + 10


def test_what_reckons_with_sizes_is_no_layer(tmp_path):
    made = model([node("Shape", "x", "a"), node("Gather", "a o", "b"), node("Concat", "b m", "c", axis=0),
                  node("Reshape", "x c", "d"), node("Relu", "d")], [1, 3, 4, 4], {"o": i64(0), "m": i64(-1)}, rank=2)
    assert [row.name for row in describe(load(made, tmp_path), (4, 4))] == ["d", "y"]


def test_the_fingerprint_is_of_all_that_the_file_says(tmp_path):
    same, again = (fingerprint(load(small(), tmp_path)) for _ in range(2))
    strided = fingerprint(load(edited(set_attribute(0, "strides", [1, 1])), tmp_path))
    assert same == again != strided


@pytest.mark.parametrize("batch", [1, 2, "N", None])
def test_any_number_of_images_whatever_the_file_says(tmp_path, batch):
    made = model([node("Reshape", "x s", "a"), node("Gemm", "a g")], [batch, 3, 4, 4], {
        "s": i64(batch if isinstance(batch, int) else -1, 48), "g": normal(48, 2)}, rank=2)
    net, images = load(made, tmp_path), normal(6, 3, 4, 4)
    step = batch if isinstance(batch, int) else 1
    theirs = [found for (found,) in elsewhere(made, [images[n:n + step] for n in range(0, 6, step)])]
    assert difference(net(torch.from_numpy(images)).detach(), np.concatenate(theirs)) < 1e-5
    assert difference(net(torch.from_numpy(images[:5])).detach(), np.concatenate(theirs)[:5]) < 1e-5


def test_errors_of_a_run_name_the_node(tmp_path):
    net = load(small(), tmp_path)
    with pytest.raises(DeconvnetError, match=r"images \(N, 3, H, W\), not \(1, 4, 12, 12\)"):
        net(torch.zeros(1, 4, 12, 12))
    with pytest.raises(DeconvnetError, match=r"The node conv1 cannot run on \(1, 3, 2, 2\)"):
        net(torch.zeros(1, 3, 2, 2))
    assert net(torch.zeros(1, 3, 20, 16)).shape == (1, 2)  # where nothing is fixed, another size is as good


# ---- what stands beside ----------------------------------------------------------------------------------------------

def beside(folder, text, made=None):
    (folder / "net.yaml").write_text(text)
    return load(made or small(), folder)


def test_without_a_yaml_images_are_made_as_for_the_zoo(tmp_path):
    net = load(small(), tmp_path)
    assert net.preprocess == deconvnet.images.Preprocess(12, 14) and net.classes == []


def test_the_yaml_may_end_in_yml(tmp_path):
    (tmp_path / "net.yml").write_text("classes: [cat, dog]")
    assert load(small(), tmp_path).classes == ["cat", "dog"]
    assert beside(tmp_path, "classes: [cow, pig]").classes == ["cow", "pig"]  # the other goes first
    (tmp_path / "net.yaml").unlink()
    (tmp_path / "net.yml").write_text("clases: [cat, dog]")
    with pytest.raises(UsageError, match=r"net\.yml: .*\n.*did you mean classes"):
        load(small(), tmp_path)


def test_endings_may_be_in_capitals(tmp_path):
    load(small(), tmp_path)
    file = (tmp_path / "net.onnx").rename(tmp_path / "NET.ONNX")
    (tmp_path / "NET.YAML").write_text("classes: [cat, dog]")
    assert deconvnet.load_model(str(file)).classes == ["cat", "dog"]
    with pytest.raises(UsageError, match="brings its own weights"):
        deconvnet.load_model(str(file), "w.pt")


@pytest.mark.parametrize(("text", "values"), [
    ("preset: caffe", lambda pixels: pixels[..., ::-1] - (104, 117, 123)),
    ("preset: caffe-vgg", lambda pixels: pixels[..., ::-1] - (103.939, 116.779, 123.68)),
    ("preset: zoo-imagenet", lambda pixels: (pixels / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)),
    ("scale: 255\nmean: [127.5, 127.5, 127.5]\nstd: [127.5, 64, 32]",
     lambda pixels: (pixels - 127.5) / (127.5, 64, 32)),
    ("channels: BGR\nmean: [0.1, 0.2, 0.3]\nstd: [1, 2, 4]",
     lambda pixels: (pixels[..., ::-1] / 255 - (0.1, 0.2, 0.3)) / (1, 2, 4)),
])
def test_preprocessing_is_what_the_network_was_trained_with(tmp_path, text, values):
    """From a picture to the network's output, as the words of the YAML say and onnxruntime computes."""
    net = beside(tmp_path, text)
    pixels = RANDOM.integers(0, 256, (12, 12, 3), np.uint8)
    given = net.preprocess.tensor(Image.fromarray(pixels))
    ((theirs,),) = elsewhere(small(), [values(pixels.astype("d")).transpose(2, 0, 1)[None].astype("f")])
    assert difference(net(given[None]).detach(), theirs) < 1e-4
    assert np.array_equal(net.preprocess.inverse(given), pixels)


def test_an_old_softmax_is_what_is_named_where_none_can_be_projected_from(tmp_path):
    net = load(model([node("GlobalAveragePool", "x", "mean"), node("Softmax", "mean", "y", name="chances")],
                     [1, 3, 8, 8], opset=9), tmp_path)
    assert "softmax in chances" in describe(net, (8, 8))[-1].obstacle


def test_a_first_convolution_whose_padding_differs_from_side_to_side_is_turned(tmp_path):
    made = edited(set_attribute(0, "pads", [0, 1, 2, 0]))
    net, raw = beside(tmp_path, "channels: BGR", made), RANDOM.normal(size=(1, 3, 12, 12)).astype("f")
    ((theirs,),) = elsewhere(made, [raw])
    assert difference(net(torch.from_numpy(raw[:, ::-1].copy())).detach(), theirs) < 1e-4


def test_projections_of_a_network_for_bgr_are_in_rgb(tmp_path):
    """A unit that sees blue is blue in its projection and in its filter."""
    blue = np.zeros((1, 3, 1, 1), "f")
    blue[0, 0] = 1  # the first of blue, green, red
    net = beside(tmp_path, "channels: BGR\nmean: [0, 0, 0]\nstd: [1, 1, 1]",
                 model([node("Conv", "x w", "y", name="conv1")], [1, 3, 8, 8], {"w": blue}))
    tape = deconvnet.record(net, net.preprocess.tensor(Image.new("RGB", (8, 8), (0, 0, 255)))[None])
    pixels = deconvnet.project(tape, "conv1", [(0, 0, 4, 4)]).pixels
    assert pixels.flatten().tolist() == [0, 0, 1] and net.conv1.weight.flatten().tolist() == [0, 0, 1]


@pytest.mark.parametrize(("text", "error", "words"), [
    ("presett: caffe", UsageError, "presett: unknown key; did you mean preset"),
    ("preset: keras", UsageError, "preset: "),
    ("mean: [1, 2]", UsageError, "mean"),
    ("mean: [0.5]", UsageError, "one number for each channel, of which there are 3"),
    ("std: [0, 1, 1]", UsageError, r"net\.yaml: std must be above 0"),
    ("size: 13", UsageError, "12×12 pixels"),
    ("size: 14", UsageError, r"net\.yaml: size: 14, and .*net\.onnx takes"),
    ("resize: 11", UsageError, "resize"),
    ("classes: ../names.txt", UsageError, "in the same folder"),
    ("classes: none.txt", UsageError, "none.txt cannot be read"),
    ("classes: [cat, dog, bird]", UsageError, "3 names for a network with 2 outputs"),
    (f"sha256: '{'0' * 64}'", DeconvnetError, r"net\.onnx is damaged, or another.*net\.yaml"),
])
def test_a_yaml_that_is_wrong(tmp_path, text, error, words):
    with pytest.raises(error, match=words):
        beside(tmp_path, text)


def test_what_cannot_be_turned_to_rgb(tmp_path):
    with pytest.raises(DeconvnetError, match=r"net\.onnx is for BGR, and only a network whose images go straight"):
        beside(tmp_path, "preset: caffe", single("Relu"))


def test_classes_and_the_files_own_hash(tmp_path):
    from hashlib import sha256

    (tmp_path / "names.txt").write_text("n01440764 tench, Tinca tinca\n\nn01443537 goldfish\n", encoding="utf-8")
    content = small().SerializeToString()
    net = beside(tmp_path, f"classes: names.txt\nsha256: {sha256(content).hexdigest()}", content)
    assert net.classes == ["tench, Tinca tinca", "goldfish"]
    assert beside(tmp_path, "classes: [cat, dog]").classes == ["cat", "dog"]


def test_a_size_that_the_file_leaves_open(tmp_path):
    made = single("Conv", "x w", ("N", 3, "height", "width"), {"w": normal(2, 3, 3, 3)})
    assert beside(tmp_path, "size: 40", made).preprocess.size == 40
    (tmp_path / "net.yaml").unlink()
    assert load(made, tmp_path).preprocess.size == 224


def test_grey_images(tmp_path):
    made = single("Conv", "x w", (1, 1, 8, 8), {"w": normal(2, 1, 3, 3)})
    assert load(made, tmp_path).preprocess.mean == (0.0,)
    net = beside(tmp_path, "scale: 255\nmean: [33.3]\nstd: [78.6]", made)
    pixels = RANDOM.integers(0, 256, (8, 8), np.uint8)
    ((theirs,),) = elsewhere(made, [((pixels - 33.3) / 78.6)[None, None].astype("f")])
    assert difference(net(net.preprocess.tensor(Image.fromarray(pixels).convert("RGB"))[None]).detach(), theirs) < 1e-5


# ---- from the file to the pictures -----------------------------------------------------------------------------------

def test_from_the_file_to_the_sheets(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    file = saved(small(24), tmp_path)
    for number in range(12):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RANDOM.integers(0, 256, (30, 40, 3), np.uint8)).save(folder / f"{number}.png")
    assert main(["describe", "net.onnx"]) == 0
    assert "conv2" in capsys.readouterr().out
    assert main(["scan", "--model", "net.onnx", "--images", "photos", "--out", "top.safetensors"]) == 0
    assert "net.yaml is not there: images are made as for" in capsys.readouterr().out
    (tmp_path / "net.yaml").write_text("preset: caffe")
    assert main(["scan", "--model", "net.onnx", "--images", "photos", "--out", "top.safetensors"]) == 0
    assert "net.yaml" not in capsys.readouterr().out
    (tmp_path / "net.yaml").rename(tmp_path / "net.yml")
    assert main(["scan", "--model", "net.onnx", "--images", "photos", "--out", "other.safetensors"]) == 0
    out = capsys.readouterr().out
    assert "is not there" not in out and "pixels along each side" not in out
    (tmp_path / "net.yml").write_text("preset: caffe\nresize: 256")
    assert main(["scan", "--model", "net.onnx", "--images", "photos", "--out", "other.safetensors"]) == 0
    assert "The network sees 24 of 256 pixels along each side" in capsys.readouterr().out
    (tmp_path / "net.yml").rename(tmp_path / "net.yaml")
    (tmp_path / "net.yaml").write_text("preset: caffe")
    assert list(deconvnet.read_scan("top.safetensors").layers) == ["conv1", "conv2", "fc"]
    assert main(["gallery", "top.safetensors", "--out", "sheets"]) == 0
    assert (tmp_path / "sheets" / "conv2.png").is_file()
    (tmp_path / "moved").mkdir()
    shutil.move(file, tmp_path / "moved" / "net.onnx")
    shutil.move(tmp_path / "net.yaml", tmp_path / "moved" / "net.yaml")
    assert main(["gallery", "top.safetensors", "--out", "sheets2"]) == 2
    assert "add --model" in capsys.readouterr().err
    assert main(["gallery", "top.safetensors", "--out", "sheets2", "--model", "moved/net.onnx"]) == 0


def test_the_models_of_the_tests_are_what_they_seem(tmp_path):
    """The helpers: random weights are there, outputs are added to a copy, a difference is seen."""
    made = light("squeezenet")
    assert {n.op_type for n in made.graph.node}.isdisjoint({"ConstantOfShape"}) and len(made.graph.output) == 1
    assert len(with_outputs(made, ["r1"]).graph.output) == 2 and len(made.graph.output) == 1
    assert difference([1.0, 2.0], [1.0, 2.2]) == pytest.approx(0.2 / 2.2)
    onnx.checker.check_model(made)
