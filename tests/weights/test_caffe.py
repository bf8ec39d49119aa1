"""Networks from Caffe's files: OpenCV runs the same files, layer by layer; what is not run here is refused."""

import os
import platform
import random
import re
import subprocess
import sys
from shutil import rmtree

import caffe_files as caffe
import numpy as np
import pytest
import torch
from PIL import Image
from squeezenet import DATA
from test_damaged_weights import mutations

import deconvnet
from deconvnet import cli
from deconvnet.caffe import opencv
from deconvnet.caffe.__main__ import main
from deconvnet.caffe.convert import convert
from deconvnet.caffe.prototxt import read_prototxt
from deconvnet.errors import DeconvnetError, UsageError

cv2 = pytest.importorskip("cv2")


def write(folder, name, old=False):
    """A network's two files, and where its YAML shall be."""
    text, shapes = caffe.NETWORKS[name]
    prototxt, caffemodel = folder / f"{name}.prototxt", folder / f"{name}.caffemodel"
    prototxt.write_text(caffe.vgg(old=True) if old else text)
    caffemodel.write_bytes(caffe.caffemodel(caffe.random_weights(shapes), old))
    return prototxt, caffemodel, folder / "out" / "net.yaml"


def theirs(prototxt, caffemodel, images, layer):
    net = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
    net.enableFusion(False)
    net.setInput(images.numpy())
    return torch.from_numpy(net.forward(layer))


def ours(net, images, layer):
    """What a layer puts out for images in blue, green, red; the network takes red, green, blue."""
    kept = {}
    hook = net.get_submodule(layer).register_forward_hook(lambda *call: kept.update({layer: call[-1].clone()}))
    with torch.no_grad():
        net(images.flip(1))
    hook.remove()
    return kept[layer]


@pytest.mark.parametrize(("name", "old"), [*((name, False) for name in caffe.NETWORKS), ("vgg", True)])
def test_every_layer_gives_what_opencv_gives(tmp_path, name, old):
    files = write(tmp_path, name, old)
    convert(*files)
    net = deconvnet.load_model(str(files[2]))
    size = net.preprocess.size
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1)) * 60
    text = files[0].read_text()
    checked = 0
    for layer in re.findall(r'name: "([^"]+)"', text):
        safe = re.sub(r"[^A-Za-z0-9_]+", "_", layer)
        if safe not in dict(net.named_modules()) or (layer == "bn1"):  # OpenCV scales it in the next layer
            continue
        expected = theirs(*files[:2], images, layer)
        found = ours(net, images, safe)
        assert found.numel() == expected.numel(), layer
        assert (found - expected.view_as(found)).abs().max() <= 1e-4 * expected.abs().max(), layer
        checked += 1
    assert checked >= 8
    assert net.preprocess.mean == pytest.approx((123 / 255, 117 / 255, 104 / 255))


def test_its_first_filters_take_red_first(tmp_path):
    files = write(tmp_path, "zf")
    convert(*files)
    net, raw = deconvnet.load_model(str(files[2])), caffe.random_weights(caffe.NETWORKS["zf"][1])["conv1"][1][0]
    assert torch.equal(net.conv1.weight.detach(), torch.from_numpy(raw).float().flip(1))


def test_it_goes_through_describe_scan_and_gallery(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    prototxt, caffemodel, out = write(tmp_path, "alexnet")
    assert main([str(prototxt), str(caffemodel), str(out)]) == 0
    (tmp_path / "images").mkdir()
    for n in range(6):
        pixels = np.random.default_rng(n).integers(0, 256, (80, 90, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{n}.png")
    scan = tmp_path / "top.safetensors"
    assert cli.main(["describe", str(out)]) == 0
    assert re.search(r"conv2 +Conv2d +16 +7 .*yes", capsys.readouterr().out)
    assert cli.main(["scan", "--model", str(out), "--images", str(tmp_path / "images"), "--out", str(scan)]) == 0
    assert cli.main(["gallery", str(scan), "--out", str(tmp_path / "sheets"), "--layers", "conv1,conv3"]) == 0
    assert (tmp_path / "sheets" / "conv3.png").is_file()


def test_what_an_eye_finds_in_the_yaml_is_there(tmp_path):
    files = write(tmp_path, "branches")
    convert(*files)
    text = files[2].read_text()
    for line in ("preset: caffe", "size: 33",
                 "  - {name: conv1_7x7_s2, kind: convolution, of: image, stride: 2, padding: 3}",
                 "  - {name: sum, kind: add, of: [a_relu, b_3x3]}"):
        assert line in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(("said", "mean", "std"), [
    ("mean_value: 104 mean_value: 117 mean_value: 123", (123, 117, 104), 1), ("mirror: true", (123, 117, 104), 1),
    ("mean_value: 127.5 scale: 0.0078125", (127.5,) * 3, 128), ("scale: 0.00390625", (0,) * 3, 256),
    ('mean_file: "mean.binaryproto" scale: 0.5', (123, 117, 104), 2)])
def test_mean_and_scale_are_those_of_the_input_layer(tmp_path, said, mean, std):
    files = write(tmp_path, "caffenet")
    shape = 'type: "Input" top: "data"'
    files[0].write_text(files[0].read_text().replace(shape, f"{shape} transform_param {{ {said} }}"))
    convert(*files)
    preprocess = deconvnet.load_model(str(files[2])).preprocess
    assert preprocess.mean == pytest.approx([value / 255 for value in mean])
    assert preprocess.std == pytest.approx([std / 255] * 3)


@pytest.mark.parametrize(("change", "words"), [
    (lambda text: text.replace('type: "LRN"', 'type: "PReLU"', 1), r"norm1 \(PReLU\)"),
    (lambda text: text.replace("local_size: 5", "local_size: 5 norm_region: WITHIN_CHANNEL", 1),
     "norm1 normalises within"),
    (lambda text: text.replace("pool: MAX", "pool: STOCHASTIC", 1), "pool1 pools in a way"),
    (lambda text: text.replace('bottom: "norm1"', 'bottom: "norm9"', 1), "norm9"),
    (lambda text: text.replace("input_dim: 3", "input_dim: 1"), "three channels"),
    (lambda text: text.replace("input_dim: 10\n", ""), "three channels|input and its shape"),
    (lambda text: text.replace("num_output: 12", "num_output: 13", 1), "conv1|cannot be read"),
    (lambda text: text.replace("num_output: 20", "num_output: 30"), "fc6 cannot be read from .*caffemodel: it is not"),
    (lambda text: text + 'layer { type: "Data" transform_param { scale: 0 } }', "does not make sense"),
    (lambda text: text + "input_shape: 3", "does not make sense"),
    (lambda text: text[:len(text) // 2], "where|end of the file|cannot"),
    (lambda text: "layer { " * 30, "nested too deeply"),
    (lambda text: "", "empty"),
    (lambda text: "layer \x00", "no meaning here"),
])
def test_what_cannot_be_converted_is_named(tmp_path, change, words):
    prototxt, caffemodel, out = write(tmp_path, "alexnet")
    prototxt.write_text(change(prototxt.read_text()))
    with pytest.raises(DeconvnetError, match=words) as error:
        convert(prototxt, caffemodel, out)
    assert "alexnet.prototxt" in str(error.value) or "alexnet.caffemodel" in str(error.value)
    assert not out.exists() and not out.with_suffix(".safetensors").exists()


def test_a_network_that_differs_from_opencv_is_not_written(tmp_path, monkeypatch):
    prototxt, caffemodel, out = write(tmp_path, "zf")
    from deconvnet.caffe import translation
    lrn = translation._TRANSLATED["lrn"]

    def wrong(made, layer, sources):
        name = lrn(made, layer, sources)
        made.layers[-1]["alpha"] *= 3  # as if Caffe did not divide it by the number of channels
        return name
    monkeypatch.setitem(translation._TRANSLATED, "lrn", wrong)
    with pytest.raises(DeconvnetError, match="other values than OpenCV's"):
        convert(prototxt, caffemodel, out)
    assert not out.exists() and not out.with_suffix(".safetensors").exists()


def test_weights_of_another_network_are_refused(tmp_path):
    prototxt, _, out = write(tmp_path, "zf")
    _, other, _ = write(tmp_path, "vgg")
    with pytest.raises(DeconvnetError, match=r"vgg\.caffemodel"):
        convert(prototxt, other, out)


def test_every_cut_of_a_caffemodel_is_refused(tmp_path):
    prototxt, caffemodel, out = write(tmp_path, "branches")
    whole = caffemodel.read_bytes()
    for part in np.linspace(0, len(whole) - 1, 30).astype(int):
        caffemodel.write_bytes(whole[:part])
        with pytest.raises(DeconvnetError, match="branches"):
            convert(prototxt, caffemodel, out)
    assert not out.exists()


@pytest.mark.parametrize("count", [pytest.param(60, id="some"),
                                   pytest.param(1000, id="many",
                                                marks=[pytest.mark.extended, pytest.mark.timeout(3600)])])
@pytest.mark.parametrize("which", [0, 1])
def test_changed_files_give_our_error_or_what_opencv_gives(tmp_path, which, count):
    files = write(tmp_path, "branches")
    whole, errors = files[which].read_bytes(), 0
    for changed in mutations(whole, count, random.Random(0)):
        files[which].write_bytes(changed)
        rmtree(files[2].parent, ignore_errors=True)
        try:
            convert(*files)
        except DeconvnetError:
            errors += 1
    assert errors >= count / 2


def test_a_file_that_crashes_opencv_is_an_error_that_names_it(tmp_path):
    """OpenCV leaves a word out that it does not know, takes 0 units, and divides by them."""
    prototxt, caffemodel, out = write(tmp_path, "branches")
    text = prototxt.read_text()
    prototxt.write_text(text.replace("product_param { num_output:", "product_param { num_outputs:"))
    how = "crashed over it .SIGFPE" if platform.machine() in ("x86_64", "AMD64") else ""  # elsewhere x / 0 may be 0
    with pytest.raises(DeconvnetError, match=rf"The layer fc8 .*branches\.caffemodel.*branches\.prototxt: .*{how}"):
        convert(prototxt, caffemodel, out)
    assert not out.exists()
    prototxt.write_text(text)
    convert(prototxt, caffemodel, out)


@pytest.mark.parametrize(("does", "words"), [
    ("os.kill(os.getpid(), 9)", r"crashed over it \(SIGKILL\)"), ("sys.exit(3)", r"crashed over it \(exit code 3\)"),
    ("sys.stdout.buffer.write(bytes(7))", r"crashed over it \(exit code 0\)"),
    ("time.sleep(600)", "no answer for 1 seconds")])
def test_an_opencv_that_dies_or_hangs_is_an_error(tmp_path, monkeypatch, does, words):
    monkeypatch.setattr(opencv, "_PROGRAM", ["-c", f"import os, sys, time; {does}"])
    monkeypatch.setattr(opencv, "PATIENCE", 1 if "no answer" in words else 100)
    with pytest.raises(DeconvnetError, match=rf"zf\.caffemodel .* {words}"):
        convert(*write(tmp_path, "zf"))


def test_a_plain_script_may_convert(tmp_path):
    files = write(tmp_path, "zf")
    (tmp_path / "own.py").write_text("import sys, pathlib\nfrom deconvnet.caffe.convert import convert\n"
                                     "print(convert(*map(pathlib.Path, sys.argv[1:])))\n")
    ran = subprocess.run([sys.executable, "own.py", *files], cwd=tmp_path, capture_output=True, text=True, check=False,
                         env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert ran.stdout.count("differs from OpenCV's by") == 1 and not ran.stderr


@pytest.mark.parametrize("text", ["num_output: r", "kernel_size: 0", "kernel_size: 1e99", "pad: -1", "stride: 'x'",
                                  "num_output: 0", "kernel_size { a: 1 }"])
def test_numbers_that_make_no_sense_are_our_error(tmp_path, text):
    prototxt, caffemodel, out = write(tmp_path, "zf")
    name = text.split(":")[0].split(" ")[0]
    prototxt.write_text(re.sub(rf"{name}: \S+", text, prototxt.read_text(), count=1))
    with pytest.raises(DeconvnetError):
        convert(prototxt, caffemodel, out)


def test_the_command_line(tmp_path, capsys):
    prototxt, caffemodel, out = write(tmp_path, "zf")
    assert main([]) == 2 and "NET.prototxt" in capsys.readouterr().err
    assert main([str(tmp_path / "no"), str(caffemodel), str(out)]) == 2
    assert main([str(prototxt), str(caffemodel), str(tmp_path / "net.json")]) == 2
    assert main([str(caffemodel), str(prototxt), str(out)]) == 1 and "comes first" in capsys.readouterr().err


def test_a_name_says_nothing_in_the_yaml(tmp_path):
    """A file may be called by lines, and by bytes that are no text."""
    prototxt, caffemodel, out = write(tmp_path, "zf")
    odd = prototxt.rename(tmp_path / "net\nsize: 7\udcff.prototxt")
    convert(odd, caffemodel, out)
    assert "# From Caffe's net?size: 7?.prototxt and zf.caffemodel." in out.read_text()
    deconvnet.load_model(str(out))


def test_help_is_no_error(capsys):
    assert main(["--help"]) == main(["-h"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("python -m deconvnet.caffe NET.prototxt") and not said.err


def test_what_was_edited_is_not_written_over(tmp_path, capsys):
    prototxt, caffemodel, out = write(tmp_path, "zf")
    words, weights = [str(prototxt), str(caffemodel), str(out)], out.with_suffix(".safetensors")
    assert main(words) == main(words) == 0, "the same again is no harm"
    text, content = out.read_text(), weights.read_bytes()
    out.write_text(text + "classes: synset.txt\n")
    assert main(words) == 2 and re.search(r"net\.yaml is there already, edited", capsys.readouterr().err)
    assert out.read_text() == text + "classes: synset.txt\n" and weights.read_bytes() == content
    out.unlink()
    weights.write_bytes(b"another network's")
    assert main(words) == 2 and "net.safetensors is there already" in capsys.readouterr().err
    assert not out.exists() and weights.read_bytes() == b"another network's"


def test_an_opencv_that_reads_no_caffe_says_which_does(tmp_path, monkeypatch):
    monkeypatch.delattr(cv2.dnn, "readNetFromCaffe")
    with pytest.raises(UsageError, match="no Caffe files any more"):
        convert(*write(tmp_path, "zf"))


def test_the_words_of_a_prototxt(tmp_path):
    file = tmp_path / "a.prototxt"
    file.write_text('name: "a \\"b\\" # c" # a comment\nlayer { pad: 1 pad: 2, top: \'x\' ; shape { dim: [1, 3] } }\n'
                    'layer: { v: -1.5e-3 w: MAX }')
    assert read_prototxt(file) == {"name": ['a \\"b\\" # c'], "layer": [
        {"pad": [1, 2], "top": ["x"], "shape": [{"dim": [1, 3]}]}, {"v": [-0.0015], "w": ["MAX"]}]}


@pytest.mark.skipif(not (DATA / "squeezenet").is_dir(), reason="needs SqueezeNet beside the checkout")
def test_squeezenet_by_its_own_prototxt_is_the_chain(tmp_path):
    """The real weights, put back into Caffe's branches and into BGR."""
    with np.load(DATA / "squeezenet/squeezenet_v1.0_chain_rgb.npz", allow_pickle=False) as arrays:
        chain = {name: arrays[name] for name in arrays.files}
    layers = {"conv1": [chain["conv1.weight"][:, ::-1], chain["conv1.bias"]],
              "conv_final": [chain["conv10.weight"], chain["conv10.bias"]]}
    for n in range(2, 10):
        weight, bias = chain[f"fire{n}_expand.weight"], chain[f"fire{n}_expand.bias"]
        half = len(weight) // 2
        layers |= {f"fire{n}/conv1x1_1": [chain[f"fire{n}_squeeze.weight"], chain[f"fire{n}_squeeze.bias"]],
                   f"fire{n}/conv1x1_2": [weight[:half, :, 1:2, 1:2], bias[:half]],
                   f"fire{n}/conv3x3_2": [weight[half:], bias[half:]]}
    model = tmp_path / "squeezenet.caffemodel"
    model.write_bytes(caffe.caffemodel({name: ("Convolution", arrays) for name, arrays in layers.items()}))
    convert(DATA / "squeezenet/SqueezeNet_deploy.prototxt", model, tmp_path / "net.yaml")
    net = deconvnet.load_model(str(tmp_path / "net.yaml"))
    other = deconvnet.load_model("configs/networks/squeezenet.yaml", DATA / "squeezenet/squeezenet_v1.0_chain_rgb.npz")
    images = torch.randn(2, 3, 227, 227, generator=torch.Generator().manual_seed(0)) * 60
    with torch.no_grad():
        found, expected = net(images), other(images)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max() and expected.std() > 0
