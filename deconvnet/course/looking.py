"""Checks of notebook 6: occlusion by hand, relative distance, the sign changes of correspondence."""

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise, product

import numpy as np
import torch
from torch import Tensor

from ..figures.covered import covered, positions, squares
from ..figures.invariance import Sweep
from ..tables.correspondence import differing, sign
from . import Wrong, case, close, right

Predict = Callable[[Tensor], Tensor]


# ---- occlusion ----


def occlusion(function: Callable) -> None:
    """Checks ``occlusion(predict, image, filling, square, stride)`` → what is predicted for each place."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(3, 12, 12, generator=generator)
    filling = torch.tensor([0.5, -0.25, 2.0])[:, None, None].expand(3, 12, 12).clone()
    weights = torch.randn(3, 12, 12, generator=generator)

    def predict(batch: Tensor) -> Tensor:
        if batch.ndim != 4 or batch.shape[1:] != image.shape:
            raise ValueError(f"predict takes a batch (n, 3, 12, 12), and was given {tuple(batch.shape)}")
        return (batch * weights).sum((1, 2, 3))

    for square, stride in [(4, 4), (4, 2), (5, 3), (12, 1), (1, 5), (3, 6)]:
        words = f"12×12 pixels, a square of {square}, every {stride} pixels"
        places = positions(12, square, stride)
        seen = torch.cat([predict(part) for part in covered(image, filling, squares(places, square), 16)])
        expected = seen.view(len(places), len(places))
        given = case(words, function, predict, image, filling, square, stride)
        close(words, given, expected, _wrong_maps(predict, image, filling, square, stride), tolerance=1e-4)
    kept = image.clone()
    case("12×12 pixels", lambda: function(predict, kept, filling, 4, 4))
    if not torch.equal(kept, image):
        raise Wrong("after the call the image that was given has grey squares in it: cover a clone() of it")
    right("one prediction for each place of the square, row by row.")


def _wrong_maps(predict: Predict, image: Tensor, filling: Tensor, square: int, stride: int) -> dict[str, Tensor]:
    side = image.shape[-1]
    every, short = range(0, side - square + 1, stride), range(0, side - square, stride)

    def maps(places: Sequence[int], fill: Tensor = filling, shift: int = 0, collect: bool = False) -> Tensor:
        found, last = [], image
        for y, x in product(places, places):
            one = last.clone()
            top, left = max(y - shift, 0), max(x - shift, 0)
            one[:, top:y - shift + square, left:x - shift + square] = \
                fill[:, top:y - shift + square, left:x - shift + square]
            last = one if collect else last
            found.append(predict(one[None])[0])
        return torch.stack(found).view(len(places), len(places)) if found else torch.zeros(0, 0)

    right_map = maps(every)
    return {
        "rows are y and columns are x; they are exchanged": right_map.T,
        "the square is to be filled with `filling`, whose grey is not 0 after preprocessing":
            maps(every, torch.zeros_like(image)),
        "the last place is missing: a square may end at the border, so range needs side − square + 1": maps(short),
        "only places where the whole square lies on the image count": maps(range(0, side, stride)),
        "each place begins with the image as it is; these squares pile up": maps(every, collect=True),
        "a place is the square's top left corner, not its middle": maps(every, shift=square // 2),
        "what is predicted is asked for, not how much it falls": predict(image[None])[0] - right_map,
        "rows and columns are asked for, (rows, columns), not one long row": right_map.flatten(),
    }


# ---- invariance ----


def relative_distance(function: Callable) -> None:
    """Checks ``relative_distance(plain, changed)`` → how far features move, relatively to their own norm."""
    generator = torch.Generator().manual_seed(0)
    row, maps = torch.rand(6, generator=generator), torch.rand(4, 3, 3, generator=generator)
    cases = {
        "features that did not change, doubled ones, and none at all":
            (row, torch.stack([row, 2 * row, 0 * row])),
        "a row of 6 features, 3 changed images": (row, torch.rand(3, 6, generator=generator)),
        "4 maps of 3×3, 2 changed images": (maps, torch.rand(2, 4, 3, 3, generator=generator)),
        "the same, ten times as strong": (10 * maps, 10 * torch.rand(2, 4, 3, 3, generator=generator)),
    }
    for words, (plain, changed) in cases.items():
        apart = (changed - plain).flatten(1)
        norm = float(plain.norm())
        sweep = Sweep("translation", np.arange(len(changed)), (apart.norm(dim=1).numpy()[None],) * 2,
                      (np.array([norm]),) * 2, np.zeros(0), np.zeros(0), np.zeros(0))
        cosine = torch.nn.functional.cosine_similarity(changed.flatten(1), plain.flatten()[None])
        close(words, case(words, function, plain, changed), sweep.relative()[0][0], {
            "it is to be divided by the norm of the original's features": apart.norm(dim=1),
            "the root is missing": apart.square().sum(1) / norm ** 2,
            "the norm of the original divides, not that of the changed one":
                apart.norm(dim=1) / changed.flatten(1).norm(dim=1).clamp_min(1e-9),
            "one distance for each changed image, not one for all together": apart.norm() / norm,
            "the distance is Euclidean: squares are added, not sizes": apart.abs().sum(1) / norm,
            "squares are added; this is their mean": apart.square().mean(1).sqrt() / norm,
            "the norm is over all features of the image": (changed - plain).norm(dim=-1) / plain.norm(dim=-1),
            "a cosine leaves out how strong features are; the Euclidean distance is asked for": 1 - cosine,
            "how far the norm changes is less than how far the features move":
                (changed.flatten(1).norm(dim=1) - norm).abs() / norm})
    right("0 for features that stay, 1 for features that vanish.")


# ---- correspondence ----


def sign_change(function: Callable) -> None:
    """Checks ``sign_change(changes, least)`` → the mean share, over pairs, of features whose change differs in sign."""
    for words, changes, least in _changes():
        expected = float(np.mean(differing([sign(one, least) for one in changes])))
        close(words, case(words, function, changes, least), expected, _wrong_shares(changes, least))
    right("0 where a part does the same to all images; the paper's Δ, as a mean.")


def _changes() -> list[tuple[str, list[Tensor], float]]:
    generator = torch.Generator().manual_seed(0)
    rough = [torch.randn(40, generator=generator) * (torch.rand(40, generator=generator) > 0.6) for _ in range(5)]
    return [
        ("two images that change alike", [torch.tensor([1.0, -2, 0, 3]), torch.tensor([2.0, -1, 0, 1])], 0.0),
        ("three images of four features", [torch.tensor([1.0, -2, 0, 3]), torch.tensor([2.0, 1, 0, 1]),
                                           torch.tensor([1.0, -1, 2, 0])], 0.0),
        ("no change in one image, a rise in the other", [torch.zeros(3), torch.tensor([1.0, 0, 0])], 0.0),
        ("changes of a thousandth, where a hundredth is the least", [torch.tensor([0.001, 1]),
                                                                     torch.tensor([-0.001, 1])], 0.01),
        ("a change that is exactly the least", [torch.tensor([0.5, 1]), torch.tensor([0.0, 1])], 0.5),
        ("five images of forty features, most of which do not change", rough, 0.0),
    ]


def _wrong_shares(changes: Sequence[Tensor], least: float) -> dict[str, float]:
    three = [sign(one, least) for one in changes]
    count = len(three[0])
    differ = [float(np.mean(a != b)) for a, b in combinations(three, 2)]
    below = [(one >= -least).numpy() if least else (one >= 0).numpy() for one in changes]
    above = [(one > least).numpy() for one in changes]
    self_too = [float(np.mean(a != b)) for a, b in product(three, three)]
    last_bits = [one.sign().numpy() for one in changes]
    strict = [((one >= least).int() - (one <= -least).int()).numpy() for one in changes] if least else three
    moving = [float(np.mean((a != b)[(a != 0) | (b != 0)])) if ((a != 0) | (b != 0)).any() else 0.0
              for a, b in combinations(three, 2)]

    def mean(signs: Sequence[np.ndarray]) -> float:
        return float(np.mean([np.mean(a != b) for a, b in combinations(signs, 2)]))

    return {
        "no change is a sign of its own, and is not a rise": mean(below),
        "no change is a sign of its own, and is not a fall": mean(above),
        "an image is not compared with itself": float(np.mean(self_too)),
        "a share of the features is asked for: divide by their number": float(np.mean(differ)) * count,
        "the mean over the pairs is asked for, not the sum": sum(differ),
        "each pair counts once, and the mean is over pairs": 2 * sum(differ),
        "every pair of images counts, not only those with the first":
            float(np.mean([np.mean(three[0] != one) for one in three[1:]])),
        "neighbours alone are not all pairs":
            float(np.mean([np.mean(a != b) for a, b in pairwise(three)])),
        "a change of exactly `least` counts as none": mean(strict),
        "a change of `least` or less is rounding, and counts as none": mean(last_bits),
        "features that change in neither image agree, and count": float(np.mean(moving)),
        "this is the share that agrees": 1 - float(np.mean(differ)),
        "differences of signs are not counted: −1 and 1 differ once, not twice":
            float(np.mean([np.mean(np.abs(a.astype(int) - b)) for a, b in combinations(three, 2)])),
    }
