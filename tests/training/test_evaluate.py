"""Accuracy: the mean over the classes, from one view or ten."""

from pathlib import Path

import pytest
import torch
from recipes import Some
from torch import nn

from deconvnet.images import Preprocess
from deconvnet.training.evaluate import evaluate


def test_evaluate_is_the_mean_over_classes(tree: Path) -> None:
    class Brightest(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return x.mean((2, 3))

    def colour(*rgb: int) -> torch.Tensor:
        return torch.tensor(rgb, dtype=torch.uint8)[:, None, None].expand(3, 230, 260)

    pictures = [colour(200, 0, 0)] * 3 + [colour(0, 200, 0), colour(0, 9, 0), colour(9, 0, 0)]
    held_out = Some(pictures, [0, 0, 0, 0, 1, 2])
    net = Brightest().train()
    assert evaluate(net, held_out, Preprocess(std=(1, 1, 1), mean=(0, 0, 0))) == {
        "top1": pytest.approx((3 / 4 + 1 + 0) / 3), "top5": 1.0}
    assert net.training  # as it was found
    assert not (evaluate(net.eval(), held_out, Preprocess()) and net.training)
    assert evaluate(Brightest(), Some([], []), Preprocess()) == {}


def test_ten_views_are_the_corners_and_the_centre_and_their_mirror_images() -> None:
    class Corner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return torch.stack([x[:, 0, 0, 0], x[:, 0, 0, -1]], 1) * 10

    seen: list[torch.Tensor] = []
    picture = torch.arange(256 * 256).view(1, 256, 256).div(65536).mul(255).expand(3, -1, -1).to(torch.uint8)
    preprocess = Preprocess(224, 256, (0, 0, 0), (1, 1, 1))
    evaluate(Corner(), Some([picture], [0]), preprocess, ten=True)
    crops = [picture[:, y:y + 224, x:x + 224] for y, x in ((0, 0), (0, 32), (32, 0), (32, 32), (16, 16))]
    expected = torch.stack(crops + [crop.flip(2) for crop in crops]) / 255
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-6)


def test_ten_views_average_probabilities() -> None:
    class Scores(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left = x[:, 0, :, :100].mean((1, 2)) > x[:, 0, :, -100:].mean((1, 2))  # not so in the mirror image
            return torch.where(left[:, None], torch.tensor([0.0, 50.0]), torch.tensor([3.0, 0.0]))

    picture = torch.linspace(255, 0, 256).expand(3, 256, -1).to(torch.uint8)
    # five views say 1 for certain, five say 0 with 95 %: probabilities favour 1, as scores would by far; hits say tie
    assert evaluate(Scores(), Some([picture], [1]), Preprocess(), ten=True)["top1"] == 1
    assert evaluate(Scores(), Some([picture], [0]), Preprocess(), ten=True)["top1"] == 0
