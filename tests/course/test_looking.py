"""Notebook 6: what is right passes, and the mistakes that students make are told."""

from itertools import combinations, pairwise, product

import numpy as np
import pytest
import torch
from answers import answers, refused

from deconvnet.course import looking as check

RIGHT = answers("6_is_it_looking_at_that")
EXERCISES = ["occlusion", "relative_distance", "sign_change"]


@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_solution_is_right(exercise, capsys):
    getattr(check, exercise)(RIGHT[exercise])
    assert capsys.readouterr().out.startswith("Right: ")


@pytest.mark.parametrize("exercise", EXERCISES)
def test_what_is_not_written_yet_passes_through(exercise):
    def mine(*_):
        raise NotImplementedError
    with pytest.raises(NotImplementedError):
        getattr(check, exercise)(mine)


# ---- occlusion ----


def _occlusion(places=lambda side, square, stride: range(0, side - square + 1, stride), fresh=torch.clone,
               put=lambda filling: filling, shift=0):
    def occlusion(predict, image, filling, square, stride):
        there = places(image.shape[1], square, stride)
        found = []
        for y, x in product(there, there):
            covered, move = fresh(image), square // 2 if shift else 0
            top, left = max(y - move, 0), max(x - move, 0)
            rows, columns = slice(top, y - move + square), slice(left, x - move + square)
            covered[:, rows, columns] = put(filling)[:, rows, columns]
            found.append(predict(covered[None])[0])
        return torch.stack(found).view(len(there), len(there)) if found else torch.zeros(0, 0)
    return occlusion


def _drop(predict, image, filling, square, stride):
    return predict(image[None])[0] - RIGHT["occlusion"](predict, image, filling, square, stride)


def _one_grey(predict, image, filling, square, stride):
    return RIGHT["occlusion"](predict, image, torch.full_like(image, float(filling.mean())), square, stride)


def _spoils(predict, image, filling, square, stride):
    found = RIGHT["occlusion"](predict, image, filling, square, stride)
    image[:, :square, :square] = 0
    return found


@pytest.mark.parametrize(("wrong", "words"), [
    (lambda *given: RIGHT["occlusion"](*given).T, "Likely cause: rows are y and columns are x"),
    (_occlusion(put=torch.zeros_like), "Likely cause: the square is to be filled with `filling`"),
    (_one_grey, "this came"),
    (_occlusion(places=lambda side, square, stride: range(0, side - square, stride)), "came; expected was"),
    (_occlusion(places=lambda side, square, stride: range(0, side, stride)), "came; expected was"),
    (_occlusion(fresh=lambda image: image), "Likely cause: each place begins with the image as it is"),
    (_occlusion(shift=1), "Likely cause: a place is the square's top left corner"),
    (_drop, "Likely cause: what is predicted is asked for"),
    (lambda *given: RIGHT["occlusion"](*given).flatten(), r"shape \(9,\) came"),
    (lambda predict, image, *_: predict(image), r"raised ValueError: predict takes a batch"),
    (_spoils, "the image that was given has grey squares in it")])
def test_occlusion(wrong, words):
    refused(check.occlusion, wrong, f"(?s){words}")


# ---- invariance ----


@pytest.mark.parametrize(("wrong", "words"), [
    (lambda x, y: (y - x).flatten(1).norm(dim=1), "Likely cause: it is to be divided by the norm"),
    (lambda x, y: (y - x).flatten(1).square().sum(1) / x.square().sum(), "Likely cause: the root is missing"),
    (lambda x, y: (y - x).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1).clamp_min(1e-9),
     "Likely cause: the norm of the original divides"),
    (lambda x, y: (y - x).norm() / x.norm(), r"shape \(\) came; expected was \(3,\).*Likely cause: one distance for"),
    (lambda x, y: (y - x).flatten(1).abs().sum(1) / x.norm(), "Likely cause: the distance is Euclidean"),
    (lambda x, y: (y - x).flatten(1).square().mean(1).sqrt() / x.norm(), "Likely cause: squares are added"),
    (lambda x, y: 1 - torch.cosine_similarity(y.flatten(1), x.flatten()[None]), "Likely cause: a cosine leaves out"),
    (lambda x, y: (y.flatten(1).norm(dim=1) - x.norm()).abs() / x.norm(), "Likely cause: how far the norm changes"),
    (lambda x, y: (y - x).norm(dim=-1) / x.norm(), r"shape \(2, 4, 3\) came; expected was \(2,\)")])
def test_relative_distance(wrong, words):
    refused(check.relative_distance, wrong, f"(?s){words}")


# ---- correspondence ----


def _signs(changes, least):
    return [((one > least).int() - (one < -least).int()).numpy() for one in changes]


def _delta(signs=_signs, pairs=lambda signs: combinations(signs, 2), differ=lambda a, b: np.mean(a != b), over=np.mean):
    return lambda changes, least: over([differ(a, b) for a, b in pairs(signs(changes, least))])


@pytest.mark.parametrize(("wrong", "words"), [
    (_delta(signs=lambda changes, least: [(one > least).numpy() for one in changes]), "Likely cause: .*not a fall"),
    (_delta(signs=lambda changes, least: [(one >= -least).numpy() for one in changes]), "Likely cause: .*not a rise"),
    (_delta(signs=lambda changes, least: [one.sign().numpy() for one in changes]),
     "thousandth.*Likely cause: a change of `least` or less"),
    (_delta(signs=lambda changes, least: [(one.sign() * (one.abs() >= least)).numpy() for one in changes]),
     "exactly the least.*Likely cause: a change of exactly"),
    (_delta(pairs=lambda signs: product(signs, signs)), "Likely cause: an image is not compared with itself"),
    (_delta(differ=lambda a, b: (a != b).sum()), "Likely cause: a share of the features"),
    (_delta(over=sum), "Likely cause: the mean over the pairs"),
    (_delta(pairs=lambda signs: product(signs, signs), over=sum), "Likely cause: each pair counts once"),
    (_delta(pairs=lambda signs: [(signs[0], one) for one in signs[1:]]), "Likely cause: every pair of images"),
    (_delta(pairs=pairwise), "five images.*Likely cause: neighbours alone|three images.*Likely cause: neighbours"),
    (_delta(differ=lambda a, b: np.mean(a == b)), "Likely cause: this is the share that agrees"),
    (_delta(differ=lambda a, b: np.mean(np.abs(a - b))), "Likely cause: differences of signs are not counted"),
    (lambda changes, least: None, "gave None. Does it end in return")])
def test_sign_change(wrong, words):
    refused(check.sign_change, wrong, f"(?s){words}")
