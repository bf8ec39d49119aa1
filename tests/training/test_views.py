"""Views: the paper's sub-crops, random parts, and colours."""

from pathlib import Path

import torch
from recipes import Some, recipe

from deconvnet.training import Recipe, Stage, data, views


def test_views_depend_on_seed_epoch_and_number_alone(tree: Path) -> None:
    settings = recipe(tree, stages=(Stage(epochs=2, size=128), Stage(epochs=1)))
    pictures = data.load(settings, progress=False)
    once, again = (views.Views(pictures.train, settings, 0) for _ in range(2))
    backwards = [again[i][0] for i in reversed(range(len(again)))][::-1]
    assert all(torch.equal(once[i][0], backwards[i]) for i in range(len(once)))
    assert not torch.equal(once[0][0], views.Views(pictures.train, settings, 1)[0][0])
    assert [views.Views(pictures.train, settings, epoch)[0][0].shape[1] for epoch in range(3)] == [128, 128, 224]


def test_the_ten_sub_crops_of_the_paper(tree: Path) -> None:
    picture = torch.arange(256 * 300).remainder(251).view(1, 256, 300).expand(3, -1, -1).to(torch.uint8)
    settings = recipe(tree, views="ten", stages=(Stage(epochs=200),))
    every = [views.Views(Some([picture], [0]), settings, epoch)[0] for epoch in range(200)]
    seen = {view.numpy().tobytes() for view, *_ in every}
    square = picture[:, :, 22:278]
    crops = [square[:, y:y + 224, x:x + 224] for y, x in ((0, 0), (0, 32), (32, 0), (32, 32), (16, 16))]
    assert seen == {view.contiguous().numpy().tobytes() for crop in crops for view in (crop, crop.flip(2))}
    crops += [crop.flip(2) for crop in crops]
    assert all(torch.equal(view, crops[crop]) for view, _, crop in every) and len({crop for *_, crop in every}) == 10


def test_the_mean_picture_is_cut_as_the_views_are() -> None:
    picture = torch.rand(3, 256, 256)
    settings = Recipe(images="x", stages=(Stage(epochs=200),))
    means = views.sub_crop_means(picture, 224, 224)
    assert means.shape == (10, 3, 224, 224) and torch.equal(means[4], picture[:, 16:240, 16:240])
    levels = (picture * 255).round().to(torch.uint8)
    for epoch in range(50):
        view, _, crop = views.Views(Some([levels], [0]), settings, epoch)[0]
        torch.testing.assert_close(view / 255, means[crop], rtol=0, atol=0.51 / 255)
    assert views.sub_crop_means(picture, 224, 128).shape == (10, 3, 128, 128)


def test_jitter_is_mild_and_different_for_each_image() -> None:
    torch.manual_seed(0)
    images = torch.rand(40, 3, 5, 5)
    assert torch.allclose(views.jitter(images, 0.0), images, atol=1e-6)
    change = (views.jitter(images, 0.2) - images).abs().amax((1, 2, 3))
    assert change.min() > 0.02 and change.max() < 0.6 and change.unique().numel() == 40
    grey = torch.rand(40, 1, 5, 5).expand(-1, 3, -1, -1)
    assert views.jitter(grey, 0.2).std(1).mean() > 0.005  # the balance of colours moves too
