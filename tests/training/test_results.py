"""What a run gives: snapshots and weights that load, whole or in bytes, and that are refused when they changed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recipes import tiny
from safetensors.torch import load_file
from torch import Tensor

import deconvnet
from deconvnet.errors import DeconvnetError
from deconvnet.importing.card import in_floats
from deconvnet.training import Stage, data, results
from deconvnet.training.build import fold
from deconvnet.training.run import Run


@pytest.fixture(scope="module")
def folder(tree: Path, tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def run(tree: Path, folder: Path) -> Run:
    """A run of two epochs that left a whole snapshot after each, and small ones in another folder."""
    settings = tiny(tree, widths=(6, 5, 4, 5, 4), without=(4,), batch_norm=True, snapshots=(1, 2), train_per_class=None,
                    stages=(Stage(epochs=1, size=128), Stage(epochs=2)))
    run = Run(settings, data.load(settings, progress=False))
    small = settings.model_copy(update={"small_snapshots": True})
    for epoch in range(2):
        run.epoch()
        if epoch + 1 in settings.snapshots:
            results.write_snapshot(run, folder / "whole")
        run.recipe = small
        results.write_snapshot(run, folder / "small")
        run.recipe = settings
    return run


def weights(path: Path) -> deconvnet.network.Network:
    return deconvnet.load_model("zfnet", weights=path)


def test_a_whole_snapshot_gives_the_scores_of_the_run(run: Run, folder: Path) -> None:
    folded, kept = fold(run.net, run.recipe), weights(folder / "whole/epoch-02.safetensors")
    inputs = torch.stack([kept.preprocess.tensor(image) for image in _images(run)])
    with torch.no_grad():
        expected, scores = folded(inputs), kept(inputs)
    assert scores.shape == (4, 3) and expected.std() > 0.01
    torch.testing.assert_close(scores, expected, rtol=5e-3, atol=5e-3 * float(expected.abs().max()))
    assert {value.dtype for value in load_file(folder / "whole/epoch-02.safetensors").values()} == {torch.float16}
    for name, value in folded.state_dict().items():
        assert torch.equal(kept.get_parameter(name), value.half().float()), name


def _images(run: Run) -> list:
    from PIL import Image

    pictures = [run.data.train[number] for number in (0, 5, 9, 14)]
    return [Image.fromarray(p.permute(1, 2, 0).numpy()).resize((224, 224)) for p in pictures]


def test_a_small_snapshot_is_the_convolutions_to_half_a_step(run: Run, folder: Path) -> None:
    folded, kept = fold(run.net, run.recipe), weights(folder / "small/epoch-02.safetensors")
    assert [name for name, _ in kept.named_children()][-1] == "pool5" and kept.layers[-1] == "pool5"
    assert not hasattr(kept, "fc8") and kept.classes == ["across", "down", "plain"]
    for name, weight in kept.state_dict().items():
        expected = folded.get_parameter(name).detach()
        if name.endswith("bias"):
            assert torch.equal(weight, expected.half().float()), name
            continue
        step = expected.flatten(1).abs().amax(1)[:, None] / 127
        error = (weight - expected).flatten(1).abs()
        assert bool((error <= step * 0.5001).all()) and float(error.max()) > 0, name
    sizes = [(folder / kind / "epoch-02.safetensors").stat().st_size for kind in ("small", "whole")]
    assert sizes[0] < sizes[1]


def test_snapshots_have_names_and_cards(run: Run, folder: Path, tree: Path) -> None:
    for kind in ("whole", "small"):
        assert {path.name for path in (folder / kind).iterdir()} == {
            f"epoch-0{epoch}.{ending}" for epoch in (1, 2) for ending in ("safetensors", "json")}
        for epoch in (1, 2):
            text = (folder / kind / f"epoch-0{epoch}.json").read_text()
            card = json.loads(text)
            assert card["epoch"] == epoch and card["network"] == "zfnet" and card["preprocess"]["size"] == 224
            assert card["recipe"]["without"] == [4] and card["images_sha256"] == run.data.manifest
            assert card["arguments"] == {"classes": 3, "widths": [6, 5, 4, 5, 4], "without": [4],
                                         "hidden": None if kind == "small" else [4]}
            assert str(tree) not in text
    first, second = (load_file(folder / f"whole/epoch-0{epoch}.safetensors") for epoch in (1, 2))
    assert not torch.equal(first["conv1.weight"], second["conv1.weight"])


def test_a_snapshot_that_changed_is_refused(run: Run, folder: Path, tmp_path: Path) -> None:
    for kind in ("whole", "small"):
        shutil.copytree(folder / kind, tmp_path / kind)
        file = tmp_path / kind / "epoch-01.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        with pytest.raises(DeconvnetError, match="damaged, or another: its SHA-256"):
            weights(file)


def test_projections_from_a_small_snapshot(run: Run, folder: Path) -> None:
    net = weights(folder / "small/epoch-02.safetensors")
    inputs = torch.stack([net.preprocess.tensor(image) for image in _images(run)])
    tape = deconvnet.record(net, inputs)
    maps = tape.activations("conv5")
    image, unit, y, x = (int(i) for i in torch.unravel_index(maps.argmax(), maps.shape))
    assert float(maps.max()) > 0
    shown = deconvnet.project(tape, "conv5", [[image, unit, y, x]])
    assert shown.pixels.isfinite().all() and shown.pixels.abs().max() > 0


def test_snapshots_are_of_the_epochs_that_the_recipe_names(tree: Path, tmp_path: Path) -> None:
    from deconvnet import training

    settings = tiny(tree, stages=(Stage(epochs=2, size=128), Stage(epochs=1)), snapshots=(3, 1), small_snapshots=True)
    training.train(settings, tmp_path, progress=False)
    assert sorted(path.name for path in (tmp_path / "snapshots").glob("*.safetensors")) == [
        "epoch-01.safetensors", "epoch-03.safetensors"]


# ---- a byte a weight ----

values = st.floats(-60000, 60000, width=32) | st.floats(-2**-10, 2**-10, width=32) | st.just(0.0)


@st.composite
def weight(draw) -> Tensor:
    shape = draw(st.lists(st.integers(1, 3), min_size=2, max_size=4))
    count = torch.Size(shape).numel()
    return torch.tensor(draw(st.lists(values, min_size=count, max_size=count))).view(shape)


@given(weight(), st.lists(values, min_size=1, max_size=4))
def test_bytes_and_back_is_half_a_step_at_most(convolution: Tensor, bias: list[float]) -> None:
    state = {"a.weight": convolution, "a.bias": torch.tensor(bias), "b_scale": torch.tensor(bias)}
    small = results.bytewise(state)
    assert set(small) == {"a.weight", "a.weight_scale", "a.bias", "b_scale"}
    assert small["a.weight"].dtype == torch.int8 and small["a.weight"].shape == convolution.shape
    back = in_floats(small)
    assert list(back) == list(state) and back["a.weight"].dtype == torch.float32
    largest = convolution.double().flatten(1).abs().amax(1)
    error = (back["a.weight"].double() - convolution.double()).flatten(1).abs().amax(1)
    assert bool((error <= largest / 254 * 1.0001 + 1e-14).all())
    assert torch.equal(back["a.bias"], torch.tensor(bias).half()) and torch.equal(back["b_scale"], small["b_scale"])


def test_weights_that_are_no_bytes_are_not_scaled() -> None:
    state = {"gain": torch.tensor([[2.0], [3.0]]), "gain_scale": torch.tensor([5.0, 7.0]),
             "table": torch.tensor([[2], [3]], dtype=torch.int8)}
    back = in_floats(state)
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)
