"""No file of weights runs code, by whatever door it comes in; those that would, elsewhere, are seen to."""

from contextlib import suppress

import caffe_files
import evil
import pytest
import torch
from safetensors.torch import save_file

import deconvnet
from deconvnet import cli
from deconvnet.errors import DeconvnetError

SOURCE = """
from torch import nn
def build():
    net = nn.Sequential()
    net.conv1, net.relu1 = nn.Conv2d(3, 4, 3), nn.ReLU()
    return net
"""
NAMES = sorted(evil.forms("/nowhere"))
INERT = {"torchscript as it is", "a whole module"}  # nothing in them that shows
NOT_BY_TORCH = {"legacy tar", "zip in zip", "torch.package", "pt2", "pt2, renamed", "npz with other members", "gzip",
                "a line for site", "torchscript"}  # what runs these is another loader than the careless one here


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "images").mkdir()
    (tmp_path / "canary.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w').close()\ndef build(): pass")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def doors(place, file):
    """Every way in which a file of weights can be given; each must end with our error, or with 1 or 2."""
    net = str(place / "mine.py:build")

    def yaml_of(text):
        card = place / "card.yaml"
        card.write_text(text)
        return str(card)

    def fails(call):
        with pytest.raises(DeconvnetError, match=rf"{file.name}|\.yaml"):
            call()

    def ends(words):
        assert cli.main(words) in (1, 2)

    listed = "layers: [{name: conv1, kind: convolution}]\nsize: 8\n"
    yield "load_model", lambda: fails(lambda: deconvnet.load_model(net, file))
    yield "as a model", lambda: fails(lambda: deconvnet.load_model(str(file)))
    yield "a card", lambda: fails(lambda: deconvnet.load_model(net, yaml_of(f"weights: {file.name}")))
    yield "layers", lambda: fails(lambda: deconvnet.load_model(yaml_of(f"{listed}weights: {file.name}")))
    yield "layers, given", lambda: fails(lambda: deconvnet.load_model(yaml_of(listed), file))
    yield "of ours", lambda: fails(lambda: deconvnet.load_model("zfnet", file))
    yield "describe", lambda: ends(["describe", net, "--weights", str(file)])
    yield "scan", lambda: ends(["scan", "--model", net, "--weights", str(file), "--images", "builtin:photographs-apart",
                                "--out", "top.safetensors"])


@pytest.mark.parametrize("name", NAMES)
def test_no_file_of_weights_runs_code(place, name, capsys):
    canary = place / "canary"
    end, content = evil.forms(canary)[name]
    file = place / f"w{end}"
    file.write_bytes(content)
    for door, go in doors(place, file):
        go()
        assert not canary.exists(), door


@pytest.mark.parametrize("name", sorted(set(NAMES) - INERT - NOT_BY_TORCH))
def test_these_files_would_run_code_where_nobody_cares(place, name):
    canary = place / "canary"
    end, content = evil.forms(canary)[name]
    with suppress(Exception):  # after the payload, what is in the file may not please torch
        evil.opens_carelessly(end, content)
    assert canary.exists(), "the payload must bite, or the other test shows nothing"


def test_there_are_enough_of_them():
    assert len(set(NAMES) - INERT) >= 15 and len(set(NAMES) - INERT - NOT_BY_TORCH) >= 15


@pytest.mark.parametrize("name", sorted(evil.yamls("/nowhere")))
def test_no_yaml_runs_code(place, name):
    canary = place / "canary"
    file = place / "net.yaml"
    save_file({"conv1.weight": torch.zeros(4, 3, 3, 3)}, place / "w.safetensors")
    file.write_text(evil.yamls(canary)[name])
    for call in (lambda: deconvnet.load_model(str(file)), lambda: deconvnet.load_model("zfnet", file),
                 lambda: deconvnet.load_model(str(place / "mine.py:build"), file)):
        with pytest.raises(DeconvnetError, match=r"net\.yaml"):
            call()
    assert cli.main(["describe", str(file)]) == 2
    assert not canary.exists()


@pytest.mark.parametrize("name", ["apply", "new", "key"])
def test_this_yaml_would_run_code_where_nobody_cares(place, name):
    evil.opens_carelessly(".yaml", evil.yamls(place / "canary")[name])
    assert (place / "canary").exists()


@pytest.mark.parametrize("name", NAMES)
def test_no_caffemodel_and_no_prototxt_runs_code(place, name):
    pytest.importorskip("cv2")
    from deconvnet.caffe.__main__ import main
    text, shapes = caffe_files.NETWORKS["zf"]
    good, model, bad = place / "a.prototxt", place / "a.caffemodel", place / "evil"
    good.write_text(text)
    model.write_bytes(caffe_files.caffemodel(caffe_files.random_weights(shapes)))
    bad.write_bytes(evil.forms(place / "canary")[name][1])
    for words in ((good, bad), (bad, model), (bad, bad)):
        assert main([*map(str, words), str(place / "out.yaml")]) in (1, 2)
    assert not (place / "canary").exists() and not (place / "out.yaml").exists()


def test_a_card_in_json_is_data(place):
    save_file({"conv1.weight": torch.zeros(4, 3, 3, 3), "conv1.bias": torch.zeros(4)}, place / "w.safetensors")
    code = f"__import__('os').system('touch {place / 'canary'}')"
    for key in ("preprocess", "arguments", "classes", "sha256"):
        (place / "w.json").write_text(f'{{"{key}": {{"size": "{code}", "__class__": "{code}"}}}}')
        try:
            deconvnet.load_model(str(place / "mine.py:build"), place / "w.safetensors")
        except DeconvnetError:
            continue
    assert not (place / "canary").exists()


def test_nothing_is_left_in_the_folder_of_the_file(place):
    """What decodes beside the file it reads would leave something to import."""
    file = place / "w.pt"
    file.write_bytes(evil.forms(place / "canary")["torch.package"][1])
    before = {path.name for path in place.iterdir()}
    with pytest.raises(DeconvnetError):
        deconvnet.load_model(str(place / "mine.py:build"), file)
    assert {path.name for path in place.iterdir()} - before <= {"__pycache__"}
