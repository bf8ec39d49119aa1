"""Notebook 5: what is right passes, and the mistakes that students make are told."""

import pytest
import torch
import torch.nn.functional as F
from answers import answers, refused

from deconvnet.course import settings_compared as check
from deconvnet.training.filters import renormalise

RIGHT = answers("5_alexnet_against_zfnet")
EXERCISES = ["appears_as", "share_beyond", "renormalise", "near_duplicates"]


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


# ---- aliasing ----


@pytest.mark.parametrize("also_right", [
    lambda f, s: min(f % (1 / s), -f % (1 / s)), lambda f, s: abs((f * s + 0.5) % 1 - 0.5) / s])
def test_other_ways_to_fold_are_right(also_right):
    check.appears_as(also_right)


@pytest.mark.parametrize(("wrong", "words"), [
    (lambda f, s: f, "Likely cause: frequencies below the limit pass unchanged"),
    (lambda f, s: min(f, 1 / (2 * s)), "Likely cause: what lies beyond the limit is not lost"),
    (lambda f, s: abs(1 / s - f) if f > 1 / (2 * s) else f, "Likely cause: it is folded at the limit"),
    (lambda f, s: abs(f - round(f * s) / s) * s, "Likely cause: .*a cycle per pixel is asked for"),
    (lambda f, s: f % (1 / s), "Likely cause: frequencies below the limit pass unchanged"),
    (lambda f, s: 1 / (2 * s) - f, "this came"),
    (lambda f, s: 1 / (f * s), "ZeroDivisionError")])
def test_appears_as(wrong, words):
    refused(check.appears_as, wrong, f"(?s){words}")


# ---- energy beyond the limit ----


def _share(where=lambda y, x, limit: (y >= limit) | (x >= limit), power=lambda f: f.abs().square().sum(0), pad=True,
           limit=lambda s: 1 / (2 * s), along=lambda n: torch.fft.fftfreq(n).abs()):
    def share_beyond(pixels, stride, size):
        found = power(torch.fft.fft2(pixels, s=(size, size) if pad else None))
        f = along(found.shape[-1])
        return found[where(f[:, None], f[None], limit(stride)).expand(found.shape)].sum() / found.sum()
    return share_beyond


def _mean_colour(pixels, stride, size):
    return RIGHT["share_beyond"](pixels.mean(0, keepdim=True), stride, size)


@pytest.mark.parametrize(("wrong", "words"), [
    (_share(where=lambda y, x, limit: (y < limit) & (x < limit)), "Likely cause: that is the part below"),
    (_share(power=lambda f: f.abs().square().sum(0).sqrt()), "Likely cause: energy is the square"),
    (_share(power=lambda f: f.abs().sum(0)), "this came"),
    (_share(where=lambda y, x, limit: (y >= limit) & (x >= limit)), "Likely cause: what reaches the limit on one axis"),
    (_share(where=lambda y, x, limit: torch.hypot(y, x) >= limit), "Likely cause: .*a square, not a circle"),
    (_share(where=lambda y, x, limit: (y > limit) | (x > limit)), "exactly at the limit.*Likely cause: what lies exac"),
    (_share(limit=lambda s: 1 / s), "Likely cause: the limit of a stride s is 1/"),
    (_share(pad=False), "Likely cause: the pixels are to be laid on size×size zeros"),
    (_share(along=torch.fft.fftfreq), "Likely cause: half of the frequencies of fftfreq are negative"),
    (_mean_colour, "Likely cause: the energies of the colours are added"),
    (lambda pixels, stride, size: print(end=""), "gave None. Does it end in return")])
def test_share_beyond(wrong, words):
    refused(check.share_beyond, wrong, f"(?s){words}")


# ---- renormalisation ----


def _scaled(size):
    return lambda weight, limit: weight * (limit / size(weight).clamp_min(1e-30)).clamp_max(1)


def _in_place(weight, limit):
    rms = weight.square().mean((1, 2, 3), keepdim=True).sqrt()
    return weight.mul_((limit / rms).clamp_max(1))


@pytest.mark.parametrize(("wrong", "words"), [
    (lambda w, limit: w * limit / w.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-30),
     "Likely cause: filters at or below the limit stay"),
    (_scaled(lambda w: w.flatten(1).norm(dim=1)[:, None, None, None]), "Likely cause: RMS is the root of the mean"),
    (_scaled(lambda w: w.square().mean().sqrt()), "Likely cause: each filter has an RMS of its own"),
    (_scaled(lambda w: w.square().mean((2, 3), keepdim=True).sqrt()), "Likely cause: a filter's RMS is over its three"),
    (lambda w, limit: w.clamp(-limit, limit), "Likely cause: single weights are not cut off"),
    (_scaled(lambda w: w.square().mean((1, 2, 3), keepdim=True)), "Likely cause: the root is missing"),
    (_scaled(lambda w: w.std((1, 2, 3), correction=0, keepdim=True)), "Likely cause: a mean that is subtracted"),
    (_in_place, "the filters that were given have changed"),
    (lambda w, limit: w / w.square().mean((1, 2, 3), keepdim=True).sqrt() *
     w.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_max(limit), "zeros among them: NaN or infinity came"),
    (lambda w, limit: w.square().mean((1, 2, 3)).sqrt(), r"shape \(6,\) came")])
def test_renormalise(wrong, words):
    refused(check.renormalise, wrong, f"(?s){words}")


def test_training_scales_filters_that_look_at_pixels_as_the_exercise_does():
    net = torch.nn.Sequential()
    net.conv1 = torch.nn.Conv2d(3, 8, 7)
    weight = torch.randn(8, 3, 7, 7) * torch.logspace(-2, 0.5, 8)[:, None, None, None]
    with torch.no_grad():
        net.conv1.weight.copy_(weight)
    renormalise(net, 0.1, torch.full((3,), 1 / 255))
    torch.testing.assert_close(net.conv1.weight.detach(), RIGHT["renormalise"](weight, 0.1))


# ---- near-duplicates ----


def _cosines(weight):
    unit = F.normalize(weight.flatten(1), dim=1)
    return unit @ unit.T


@pytest.mark.parametrize(("wrong", "words"), [
    (lambda w, alike: int((_cosines(w).abs() > alike).any(1).sum()), "Likely cause: every filter is like itself"),
    (lambda w, alike: int((_cosines(w).fill_diagonal_(0) > alike).any(1).sum()), "Likely cause: a negative is the sam"),
    (lambda w, alike: int((_cosines(w).abs().triu(1) > alike).sum()), "Likely cause: filters are asked for, not pairs"),
    (lambda w, alike: int((_cosines(w).abs().fill_diagonal_(0) > alike).sum()), "Likely cause: each pair is counted"),
    (lambda w, alike: int(((w.flatten(1) @ w.flatten(1).T).fill_diagonal_(0).abs() > alike).any(1).sum()),
     "Likely cause: a cosine is divided by both norms"),
    (lambda w, alike: int((_cosines(w).abs().triu(1) > alike).any(0).sum()), "Likely cause: (filters|the first)"),
    (lambda w, alike: RIGHT["near_duplicates"](w, alike) / len(w), "Likely cause: a number of filters"),
    (lambda w, alike: RIGHT["near_duplicates"](w, 0.95), "0.999 is asked for"),
    (lambda w, alike: len(w) - len(w.unique(dim=0)), "this came")])
def test_near_duplicates(wrong, words):
    refused(check.near_duplicates, wrong, f"(?s){words}")
