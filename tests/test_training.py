"""Training: what folds away folds exactly, what is cut off goes on with the same bits, what is held out stays out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from deconvnet.models.zfnet import ContrastNorm, ZFNet
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn
from torch.overrides import TorchFunctionMode

from deconvnet import training
from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.images import Preprocess
from deconvnet.training import Recipe, Stage


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Three classes of seven pictures, one of them unreadable: stripes down, stripes across, plain."""
    root, rng = tmp_path_factory.mktemp("tree"), np.random.default_rng(0)
    for name, pattern in (("across", (1, 0)), ("down", (0, 1)), ("plain", (0, 0))):
        (root / name).mkdir()
        for number in range(7):
            y, x = np.mgrid[:150, :140] // 8
            stripes = (y * pattern[0] + x * pattern[1]) % 2 * 150
            pixels = np.clip(stripes[..., None] + rng.integers(0, 80, (150, 140, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    (root / "plain" / "0.png").write_bytes(b"no picture")
    return root


def recipe(tree: Path, **changes) -> Recipe:
    small = {"train_per_class": 4, "hidden": (8, 8), "batch_norm": True, "init": "he", "batch": 5, "centroids": True,
             "stages": (Stage(epochs=1, size=128), Stage(epochs=1)), "views": "random", "colour": 0.2,
             "renormalise": None, "schedule": "cosine", "decay": 1e-3}
    return Recipe(**{"images": str(tree), **small, **changes})


# ---- contrast normalisation ----


@pytest.mark.parametrize("maps", [1, 2, 5, 96])
def test_contrast_norm_is_the_same_while_training(maps: int) -> None:
    x = (torch.randn(2, maps, 5, 4, dtype=torch.double) * 60).requires_grad_()
    norm, seed = ContrastNorm(), torch.randn(2, maps, 5, 4, dtype=torch.double)
    expected = F.local_response_norm(x, 5, 5e-4, 0.75, 2.0)
    (gradient,) = torch.autograd.grad((norm.train()(x) * seed).sum(), x)
    torch.testing.assert_close(norm.train()(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.grad((expected * seed).sum(), x)[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(norm.eval()(x), expected, rtol=0, atol=0)


def test_contrast_norm_is_called_by_its_name_when_it_is_used() -> None:
    class Names(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            called.append(function.__name__)
            return function(*args, **(kwargs or {}))

    called: list[str] = []
    with Names():
        ContrastNorm().eval()(torch.rand(1, 6, 2, 2))
    assert "local_response_norm" in called and "conv2d" not in called


# ---- the network ----


def test_adaptive_pooling_is_pool5_at_224() -> None:
    maps = torch.rand(2, 3, 13, 13)
    assert torch.equal(nn.AdaptiveMaxPool2d(6)(maps), nn.MaxPool2d(3, 2, ceil_mode=True)(maps))


def test_fold_gives_the_same_scores(tree: Path) -> None:
    net = training.build(recipe(tree), 5)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):  # as after training: nothing is 0 or 1
            for value in (layer.running_mean, layer.bias.data):
                value.normal_(0, 0.2)
            for value in (layer.running_var, layer.weight.data):
                value.uniform_(0.5, 2)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        before, after = net.eval()(images), training.fold(net)(images)
    assert before.std() > 0.01
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5 * float(before.abs().max()))
    assert {name for name, _ in training.fold(net).named_children()} == {name for name, _ in ZFNet().named_children()}


def test_whitening_makes_directions_equal_and_holds_back_noise() -> None:
    axes = torch.linalg.qr(torch.randn(12, 12, dtype=torch.double)).Q
    deviations = torch.logspace(-3, 2, 12, dtype=torch.double)
    some = torch.linalg.qr(torch.randn(500, 12, dtype=torch.double)).Q * 500**0.5 * deviations @ axes.T
    after = (some @ training.whitening(some, 0.001).double() @ axes).square().mean(0)
    torch.testing.assert_close(after[-2:], torch.ones(2, dtype=torch.double), rtol=0.2, atol=0)
    assert (after.diff() > 0).all() and after[0] < 1e-4


def test_patches_are_those_of_the_images_without_the_flat_ones() -> None:
    inputs = torch.randn(2, 3, 12, 9)
    inputs[1, :, :6] = 0.5  # flat
    every = torch.stack([inputs[n, :, y:y + 4, x:x + 4].flatten()
                         for n in range(2) for y in range(0, 9, 2) for x in range(0, 6, 2)])
    kept = training.patches(inputs, 4)
    centred = every - every.mean(0)
    assert 15 <= len(kept) < len(every) == 30
    assert all((centred - patch).abs().amax(1).min() < 1e-6 for patch in kept)
    assert not any((kept - (patch - every.mean(0))).abs().amax(1).min() < 1e-6 for patch in every if patch.std() == 0)


def test_centroids_find_the_edges_that_images_are_made_of() -> None:
    torch.manual_seed(0)
    edges = torch.stack([torch.cat([torch.ones(3, 7, 4), -torch.ones(3, 7, 3)], 2)] * 2)
    edges[1] = edges[1].mT.clone()  # across and down
    inputs = torch.cat([edges[torch.randint(2, (600,))] * torch.randn(600, 1, 1, 1), torch.randn(600, 3, 7, 7) * 0.1])
    inputs[:600] += 0.1 * torch.randn(600, 3, 7, 7)
    filters = training.centroids(inputs, torch.Size((2, 3, 7, 7)))
    likeness = F.cosine_similarity(filters.flatten(1)[:, None], edges.flatten(1), dim=2).abs()
    assert likeness.amax(0).min() > 0.9
    responses = training.patches(inputs, 7) @ filters.flatten(1).T
    torch.testing.assert_close(responses.std(0), torch.ones(2), rtol=1e-3, atol=0)


def test_centroids_that_gather_nothing_begin_anew() -> None:
    torch.manual_seed(0)
    three = torch.randn(3, 3, 7, 7)  # six units for three patches: some begin equal, and one gets nothing
    filters = training.centroids(three.repeat(100, 1, 1, 1), torch.Size((6, 3, 7, 7)))
    assert filters.isfinite().all() and (filters.flatten(1).norm(dim=1) > 0).all()


def test_renormalise_scales_what_is_too_large_and_nothing_else(tree: Path) -> None:
    net = training.build(recipe(tree), 3)
    std = torch.tensor([0.2, 0.25, 0.5])
    scale = 255 * std[:, None, None]
    filters = torch.randn(96, 3, 7, 7)
    sizes = torch.linspace(0.01, 0.3, 96)
    filters *= sizes[:, None, None, None] / filters.square().mean((1, 2, 3), keepdim=True).sqrt()
    with torch.no_grad():
        net.conv1.weight.copy_(filters * scale)  # on inputs divided by std, what `filters` are on pixels of 0..255
        net.conv2.weight[7] = 3.0
    before = net.conv1.weight.detach().clone()
    others = net.conv2.weight.detach()[:7].clone()
    training.renormalise(net, 0.1, std)
    rms = (net.conv1.weight / scale).square().mean((1, 2, 3)).sqrt().detach()
    torch.testing.assert_close(rms, sizes.clamp_max(0.1), rtol=1e-3, atol=0)
    torch.testing.assert_close(F.cosine_similarity(net.conv1.weight.flatten(1), before.flatten(1)), torch.ones(96))
    assert torch.equal(net.conv2.weight[:7], others)
    torch.testing.assert_close(net.conv2.weight[7], torch.full((96, 5, 5), 0.1))


def test_paper_initialisation(tree: Path) -> None:
    net = training.build(recipe(tree, init="paper", centroids=False, batch_norm=False, dropout=0.25), 3)
    assert all(float(p.detach().std()) == pytest.approx(0.01, rel=0.1) for p in net.parameters() if p.numel() > 999)
    assert all(not p.any() for name, p in net.named_parameters() if name.endswith("bias"))
    assert net.drop6.p == net.drop7.p == 0.25


def test_filter_statistics_of_filters_made_for_it() -> None:
    edge = torch.ones(3, 7, 7)
    edge[:, :, 3:] = -1
    checks = (torch.arange(49) % 2 * 2 - 1.0).view(1, 7, 7).expand(3, 7, 7)
    coloured = checks * torch.tensor([1.0, -1.0, 0.0])[:, None, None]
    filters = torch.stack([torch.ones(3, 7, 7), edge, -2 * edge, edge.mT, checks, coloured, 1 + checks])
    found = training.filter_statistics(filters)
    assert found["plain"] == pytest.approx(1 / 7) and found["near_duplicates"] == pytest.approx(2 / 7)
    assert found["largest_norm"] == pytest.approx(2 * 147**0.5)
    assert training.filter_statistics(checks[None])["fine"] > 0.9
    assert training.filter_statistics(edge[None])["fine"] < 0.2


# ---- data ----


def test_the_split_is_by_class_and_by_name_and_skips_what_cannot_be_read(tree: Path) -> None:
    pictures = training.load(recipe(tree), progress=False)
    assert pictures.classes == ["across", "down", "plain"]
    assert [line.split(":")[0] for line in pictures.skipped] == ["plain/0.png"]
    train = [label for _, label in pictures.train]
    assert train.count(0) == train.count(1) == 4 and train.count(2) in (3, 4)
    assert len(pictures.train) + len(pictures.held_out) == 20
    seen = {picture.numpy().tobytes() for picture, _ in pictures.train}
    assert not seen & {picture.numpy().tobytes() for picture, _ in pictures.held_out}
    other = training.load(recipe(tree, seed=1), progress=False)
    assert seen != {picture.numpy().tobytes() for picture, _ in other.train}


def test_large_pictures_are_kept_small(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (900, 600), "red").save(tmp_path / name / "x.png")
    assert training.load(recipe(tmp_path), progress=False).train[0][0].shape == (3, 256, 384)


def test_views_depend_on_seed_epoch_and_number_alone(tree: Path) -> None:
    settings = recipe(tree, stages=(Stage(epochs=2, size=128), Stage(epochs=1)))
    pictures = training.load(settings, progress=False)
    once, again = (training.Views(pictures, settings, 0) for _ in range(2))
    backwards = [again[i][0] for i in reversed(range(len(again)))][::-1]
    assert all(torch.equal(once[i][0], backwards[i]) for i in range(len(once)))
    assert not torch.equal(once[0][0], training.Views(pictures, settings, 1)[0][0])
    assert [training.Views(pictures, settings, epoch)[0][0].shape[1] for epoch in range(3)] == [128, 128, 224]


def test_the_ten_sub_crops_of_the_paper(tree: Path) -> None:
    picture = torch.arange(256 * 300).remainder(251).view(1, 256, 300).expand(3, -1, -1).to(torch.uint8)
    settings = recipe(tree, views="ten", stages=(Stage(epochs=200),))
    pictures = training.Pictures([(picture, 0)], [], ["a"], [], "")
    seen = {training.Views(pictures, settings, epoch)[0][0].numpy().tobytes() for epoch in range(200)}
    square = picture[:, :, 22:278]
    crops = [square[:, y:y + 224, x:x + 224] for y, x in ((0, 0), (0, 32), (32, 0), (32, 32), (16, 16))]
    assert seen == {view.contiguous().numpy().tobytes() for crop in crops for view in (crop, crop.flip(2))}


def test_jitter_is_mild_and_different_for_each_image() -> None:
    torch.manual_seed(0)
    images = torch.rand(40, 3, 5, 5)
    assert torch.allclose(training.jitter(images, 0.0), images, atol=1e-6)
    change = (training.jitter(images, 0.2) - images).abs().amax((1, 2, 3))
    assert change.min() > 0.02 and change.max() < 0.6 and change.unique().numel() == 40
    grey = torch.rand(40, 1, 5, 5).expand(-1, 3, -1, -1)
    assert training.jitter(grey, 0.2).std(1).mean() > 0.005  # the balance of colours moves too


def test_evaluate_is_the_mean_over_classes(tree: Path) -> None:
    class Brightest(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return x.mean((2, 3))

    def colour(*rgb: int) -> torch.Tensor:
        return torch.tensor(rgb, dtype=torch.uint8)[:, None, None].expand(3, 230, 260)

    held_out = [(colour(200, 0, 0), 0)] * 3 + [(colour(0, 200, 0), 0), (colour(0, 9, 0), 1), (colour(9, 0, 0), 2)]
    net = Brightest().train()
    assert training.evaluate(net, held_out, Preprocess(std=(1, 1, 1), mean=(0, 0, 0))) == {
        "top1": pytest.approx((3 / 4 + 1 + 0) / 3), "top5": 1.0}
    assert net.training  # as it was found
    assert not (training.evaluate(net.eval(), held_out, Preprocess()) and net.training)
    assert training.evaluate(Brightest(), [], Preprocess()) == {}


# ---- a run ----


@pytest.fixture(scope="module")
def finished(tree: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "new" / "folder"
    training.train(recipe(tree), out, progress=False)
    return out


class Pull(Exception):
    """The plug is pulled."""


def interrupted(monkeypatch, step: int, error: type[BaseException]) -> None:
    """From the given step on (counted over the whole run), a step raises."""
    count, real = iter(range(1000)), training.Run.step

    def fails(self, *args):
        if next(count) >= step:
            raise error
        return real(self, *args)

    monkeypatch.setattr(training.Run, "step", fails)


def test_a_run_writes_what_it_says(finished: Path, tree: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "checkpoint.safetensors", "log.jsonl", "weights.safetensors", "weights.json"}
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["size"]) for line in log] == [(1, 128), (2, 224)] and "top1" in log[-1]
    tensors, card = load_file(finished / "weights.safetensors"), json.loads((finished / "weights.json").read_text())
    net = ZFNet(**card["arguments"])
    net.load_state_dict(tensors)  # exactly these names and shapes
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert card["classes"] == ["across", "down", "plain"] and card["skipped"] == 1
    assert Preprocess(**card["preprocess"]).size == 224
    assert str(tree) not in (finished / "weights.json").read_text() + (finished / "log.jsonl").read_text()
    assert str(tree).encode() not in (finished / "checkpoint.safetensors").read_bytes()


@pytest.mark.parametrize(("step", "error"), [(1, KeyboardInterrupt), (3, KeyboardInterrupt), (3, Pull)])
def test_a_run_that_was_cut_off_ends_with_the_same_bits(tree, tmp_path, finished, monkeypatch, step, error) -> None:
    with monkeypatch.context() as patch:
        interrupted(patch, step, error)
        with pytest.raises(error) as stop:
            training.train(recipe(tree), tmp_path, progress=False)
    if error is KeyboardInterrupt:
        assert f"stopped in epoch {1 + step // 2} of 2" in str(stop.value) and "same command" in str(stop.value)
    assert (tmp_path / "checkpoint.safetensors").exists() == (step >= 2)
    training.train(recipe(tree, workers=0), tmp_path, progress=False)
    assert (tmp_path / "weights.safetensors").read_bytes() == (finished / "weights.safetensors").read_bytes()


def test_a_finished_run_is_not_trained_again(tree: Path, finished: Path, monkeypatch) -> None:
    interrupted(monkeypatch, 0, Pull)
    before = (finished / "weights.safetensors").read_bytes()
    training.train(recipe(tree), finished, progress=False)
    assert (finished / "weights.safetensors").read_bytes() == before


def test_another_recipe_does_not_go_on(tree: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refusal:
        training.train(recipe(tree, rate=0.5, dropout=0.1), finished, progress=False)
    lines = str(refusal.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:-1]] == ["dropout", "rate"]
    assert "rate: 0.01 before, 0.5 now" in lines[2]


def test_other_images_do_not_go_on(tree: Path, finished: Path, tmp_path: Path) -> None:
    for picture in sorted(tree.glob("*/[1-6].png")):
        (tmp_path / picture.parent.name).mkdir(exist_ok=True)
        (tmp_path / picture.parent.name / picture.name).write_bytes(picture.read_bytes())
    with pytest.raises(UsageError, match="images \\(by content\\)"):
        training.train(recipe(tmp_path), finished, progress=False)


def test_pictures_of_one_colour_have_no_edges_to_begin_with(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (150, 150), "red").save(tmp_path / folder / "x.png")
    with pytest.raises(UsageError, match="centroids: false"):
        training.train(recipe(tmp_path), tmp_path / "out", progress=False)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_a_damaged_checkpoint_is_an_error_with_a_remedy(tree, tmp_path, finished, keep) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes((finished / "checkpoint.safetensors").read_bytes()[:keep])
    with pytest.raises(DeconvnetError, match="damaged"):
        training.train(recipe(tree), tmp_path, progress=False)


def test_a_loss_that_is_no_number_stops_the_run(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(DeconvnetError, match="lower rate"):
        training.train(recipe(tree, rate=10, momentum=0.99, batch_norm=False, centroids=False, std=(1e-5,) * 3,
                              stages=(Stage(epochs=9, size=128), Stage(epochs=1))), tmp_path, progress=False)


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    Image.new("RGB", (150, 150)).save(tmp_path / "x.png")
    with pytest.raises(UsageError, match="at least two classes"):
        training.train(recipe(tmp_path), tmp_path / "out", progress=False)


def test_a_folder_that_cannot_be_written_is_said_before_the_images_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        training.train(recipe(tmp_path / "no images"), tmp_path / "file" / "out", progress=False)


def test_the_rate_follows_the_recipe(tree: Path) -> None:
    pictures = training.load(recipe(tree), progress=False)

    def rates(*stages: Stage, **changes) -> list[float]:
        run = training.Run(recipe(tree, stages=stages or (Stage(epochs=4),), rate=1.0, **changes), pictures)
        assert run.steps == 2
        return [run.rate(step * run.steps) for step in range(4)]

    assert rates(schedule="constant") == [1, 1, 1, 1]
    assert rates(schedule="constant", drops=(2, 3)) == pytest.approx([1, 1, 0.1, 0.01])
    assert rates(schedule="cosine") == pytest.approx([1, 0.5 + 0.125**0.5, 0.5, 0.5 - 0.125**0.5])
    assert rates(Stage(epochs=2), Stage(epochs=2, rate=0.1), schedule="cosine") == pytest.approx([1, 0.5, 0.1, 0.05])
    assert rates(schedule="constant", warmup=1) == [0.5, 1, 1, 1]


@pytest.mark.parametrize("wrong", [
    {"rate": 0}, {"stages": ()}, {"stages": ({"epochs": 3, "size": 128},)}, {"momentum": 1}, {"init": "xavier"},
    {"batch": 1, "batch_norm": True}, {"ratee": 0.1}, {"min_area": float("nan")},
])
def test_a_recipe_that_cannot_be_is_refused(tree: Path, wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Recipe(images="x", **wrong)
