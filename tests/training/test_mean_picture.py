"""The paper's per-pixel mean, from training to the gallery: what is subtracted is in the weights file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from recipes import Some, tiny
from safetensors.torch import load_file, save_file

import deconvnet
from deconvnet import training
from deconvnet.cli import main
from deconvnet.errors import DeconvnetError
from deconvnet.images import Preprocess, open_images
from deconvnet.importing.card import MEAN_PICTURE
from deconvnet.provenance import provenance, reopen
from deconvnet.training import Stage, data
from deconvnet.training.evaluate import evaluate
from deconvnet.training.run import Run
from deconvnet.training.views import sub_crop_means


@pytest.fixture(scope="module")
def trained(tree: Path, tmp_path_factory) -> Path:
    """The folder of a run with the mean of each pixel, with both kinds of snapshots."""
    out = tmp_path_factory.mktemp("pixel")
    settings = tiny(tree, mean="pixel", views="ten", test="ten", std=(1 / 255,) * 3, rate=1e-6, snapshots=(1,))
    training.train(settings, out, progress=False)
    return out


def load(trained: Path) -> deconvnet.network.Network:
    return deconvnet.load_model("zfnet", weights=trained / "weights.safetensors")


def test_the_weights_file_carries_the_picture_and_the_card_its_hash(trained: Path, tree: Path) -> None:
    picture = load_file(trained / "weights.safetensors")[MEAN_PICTURE]
    mean = data.load(tiny(tree), progress=False).mean_picture
    assert picture.dtype == torch.float32 and torch.equal(picture, mean[:, 16:240, 16:240])
    text = (trained / "weights.json").read_text()
    card = json.loads(text)
    assert set(card["preprocess"]) == {"size", "resize", "mean", "std", "mean_picture_sha256"} and len(text) < 5000
    assert set(card["held_out"]) == {"images", "top1", "top5"} and set(card["held_out_ten_views"]) == {"top1", "top5"}
    assert load(trained).preprocess.settings()["mean_picture_sha256"] == card["preprocess"]["mean_picture_sha256"]


def test_its_preprocessing_is_pixels_less_their_mean_and_back(trained: Path) -> None:
    preprocess = load(trained).preprocess
    mean = load_file(trained / "weights.safetensors")[MEAN_PICTURE].numpy()
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    inputs = preprocess.tensor(Image.fromarray(pixels))
    by_hand = pixels.transpose(2, 0, 1).astype(np.float64) - 255 * mean.astype(np.float64)
    np.testing.assert_allclose(inputs, by_hand, rtol=0, atol=1e-4)  # std is 1/255: the paper's inputs
    assert np.abs(by_hand).max() > 100
    np.testing.assert_array_equal(preprocess.inverse(inputs), pixels)
    np.testing.assert_array_equal(preprocess.inverse(inputs[None].repeat(2, 1, 1, 1))[1], pixels)


def test_training_and_measuring_subtract_the_same_from_the_same_view(tree: Path) -> None:
    settings = tiny(tree, mean="pixel", stages=(Stage(epochs=1, size=128), Stage(epochs=1)))
    found = data.load(settings, progress=False)
    found.mean_picture = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))
    run = Run(settings, found)
    for size in (224, 128):
        means = sub_crop_means(found.mean_picture, 224, size)
        np.testing.assert_array_equal(run._preprocess(size).mean_picture, means[4])
        assert torch.equal(run._mean(size, torch.tensor([7, 4])), means[[7, 4]])
    seen: list[torch.Tensor] = []

    class Watch(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x.mean((2, 3))

    levels = (found.mean_picture * 255).round().to(torch.uint8)  # a picture that is its own mean leaves nothing
    evaluate(Watch(), Some([levels], [0]), Preprocess(std=(1, 1, 1)), ten=True, means=run.means(224))
    assert seen[0].shape == (10, 3, 224, 224) and float(seen[0].abs().max()) < 0.51 / 255


def test_a_snapshot_brings_its_mean_picture_along(trained: Path) -> None:
    whole = load(trained).preprocess
    part = deconvnet.load_model("zfnet", weights=trained / "snapshots/epoch-01.safetensors").preprocess
    assert part.settings() == whole.settings() and part.mean_picture is not None


def test_weights_without_the_picture_that_their_card_speaks_of_are_refused(trained: Path, tmp_path: Path) -> None:
    for keep in ({}, {MEAN_PICTURE: torch.zeros(3, 224, 224)}):
        tensors = {**load_file(trained / "weights.safetensors")}
        del tensors[MEAN_PICTURE]
        save_file({**tensors, **keep}, tmp_path / "weights.safetensors")
        card = json.loads((trained / "weights.json").read_text())
        del card["sha256"]
        (tmp_path / "weights.json").write_text(json.dumps(card))
        with pytest.raises(DeconvnetError, match="mean picture"):
            load(tmp_path)


def test_scan_and_gallery_subtract_it_too(trained: Path, tree: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights, file = trained / "weights.safetensors", tmp_path / "top.safetensors"
    assert main(["scan", "--model", "zfnet", "--weights", str(weights), "--images", str(tree), "--layers",
                 "conv1,conv3", "--top", "2", "--out", str(file)]) == 0
    assert main(["gallery", str(file), "--out", str(tmp_path / "sheets"), "--units", "conv3:0-3"]) == 0
    assert (tmp_path / "sheets/conv3.png").is_file() and "missing" not in capsys.readouterr().out
    sheets = (tmp_path / "sheets/gallery.json").read_text()
    assert "mean_picture_sha256" in sheets and len(sheets) < 20_000
    net = load(trained)
    top = deconvnet.read_scan(file)
    assert top.provenance["preprocess"]["mean_picture_sha256"] == net.preprocess.settings()["mean_picture_sha256"]
    number = int(top["conv1"].images[0, 0])
    image = Image.open(tree / top.files[number]).convert("RGB")
    with torch.no_grad():
        strongest = net.relu1(net.conv1(net.preprocess(image)[None]))[0, 0].max()
    assert float(top["conv1"].values[0, 0]) == pytest.approx(float(strongest), rel=1e-5)


def test_another_mean_picture_than_the_scans_is_refused(trained: Path, tree: Path, tmp_path: Path) -> None:
    net = load(trained)
    images = open_images(tree, net.preprocess)
    origin = json.loads(json.dumps(provenance("scan", {}, net, images, "zfnet", str(trained), str(tree))))
    found, _ = reopen(origin, weights=str(trained / "weights.safetensors"), images=str(tree))
    assert found.preprocess.settings() == net.preprocess.settings()
    tensors = load_file(trained / "weights.safetensors")
    save_file({**tensors, MEAN_PICTURE: tensors[MEAN_PICTURE].flip(2).contiguous()}, tmp_path / "w.safetensors")
    card = json.loads((trained / "weights.json").read_text())
    del card["sha256"], card["preprocess"]["mean_picture_sha256"]
    (tmp_path / "w.json").write_text(json.dumps(card))
    with pytest.raises(DeconvnetError, match=r"mean picture .* is not that of the scan"):
        reopen(origin, weights=str(tmp_path / "w.safetensors"), images=str(tree))
    save_file({name: value for name, value in tensors.items() if name != MEAN_PICTURE}, tmp_path / "w.safetensors")
    with pytest.raises(DeconvnetError, match=r"mean picture .* is not that of the scan"):
        reopen(origin, weights=str(tmp_path / "w.safetensors"), images=str(tree))
    # whatever the card says by now: deviation and size are the scan's, as without a picture
    shutil.copy(trained / "weights.safetensors", tmp_path / "w.safetensors")
    card["preprocess"] = {**card["preprocess"], "std": [1, 1, 1]}
    (tmp_path / "w.json").write_text(json.dumps(card))
    found, images = reopen(origin, weights=str(tmp_path / "w.safetensors"), images=str(tree))
    assert found.preprocess.settings() == net.preprocess.settings() and images.preprocess is found.preprocess
