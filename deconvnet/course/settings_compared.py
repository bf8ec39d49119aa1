"""Checks of notebook 5: aliasing, the energy beyond a limit, renormalisation, near-duplicates."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..compare import ALIKE, beyond, counts, measure, nyquist, spectrum
from . import Wrong, case, close, right

# ---- aliasing ----


def appears_as(function: Callable) -> None:
    """Checks ``appears_as(frequency, stride)`` → the frequency as which samples ``stride`` pixels apart show it."""
    for stride in (1, 2, 4, 3):
        for step in (0, 1, 3, 6, 8, 10, 12, 16, 20, 23, 24):
            frequency = step / 48
            words = f"{frequency:.4f} cycles per pixel, a sample every {stride} pixels"
            folded = abs(frequency - round(frequency * stride) / stride)
            close(words, _rounded(case(words, function, frequency, stride)), _measured(step, stride), {
                "frequencies below the limit pass unchanged, and those beyond it do not": frequency,
                "what lies beyond the limit is not lost, and not cut off at it": min(frequency, 1 / (2 * stride)),
                "it is folded at the limit, 1/(2·stride), once for each time it is reached":
                    abs(1 / stride - frequency) if frequency > 1 / (2 * stride) else frequency,
                "a frequency has no sign here": -folded,
                "the samples' own unit is a cycle per sample; a cycle per pixel is asked for": folded * stride},
                  tolerance=1e-3)
    right("below 1/(2·stride) it is what it is, and beyond it is mistaken for something slower.")


def _rounded(value: Any) -> Any:
    """A number without its last bits, which would tell 0 from 1e-17."""
    try:
        return round(float(value), 5)
    except (TypeError, ValueError):
        return value


def _measured(step: int, stride: int) -> float:
    """Where the spectrum of a sampled wave of ``step`` cycles in 48 pixels is highest, in cycles per pixel."""
    where = torch.arange(0, 48, stride, dtype=torch.float64)
    wave = torch.exp(2j * torch.pi * step / 48 * where)                          # one frequency, no phase that hides it
    place = int(torch.fft.fft(wave).abs().round(decimals=9).argmax())
    return float(torch.fft.fftfreq(len(where), d=stride, dtype=torch.float64)[place].abs())


# ---- energy beyond the limit ----


def share_beyond(function: Callable) -> None:
    """Checks ``share_beyond(pixels, stride, size)`` → the part of the energy that reaches the limit on either axis."""
    for words, pixels, stride, size in _pictures():
        power = spectrum(pixels[None], size)
        expected = float(beyond(power, nyquist((stride, stride))))
        given = _rounded(case(words, function, pixels, stride, size))
        close(words, given, expected, _wrong_shares(pixels, stride, size), tolerance=1e-3)
    right("that is the energy which a map with this stride cannot tell from something coarser.")


def _pictures() -> list[tuple[str, Tensor, int, int]]:
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    generator = torch.Generator().manual_seed(0)
    slow, fast = torch.cos(2 * torch.pi * x / 16), torch.cos(2 * torch.pi * x * 7 / 16)
    diagonal = torch.cos(2 * torch.pi * (x + y) * 3 / 32)
    edge = torch.cos(2 * torch.pi * y / 4)
    noise = torch.randn(3, 27, 27, generator=generator)
    return [
        ("stripes of 16 pixels on 64×64 zeros, stride 4", slow.expand(3, -1, -1), 4, 64),
        ("stripes of 16/7 pixels, stride 4", fast.expand(3, -1, -1), 4, 32),
        ("diagonal stripes whose frequency along each axis is 3/32, stride 4", diagonal.expand(3, -1, -1), 4, 64),
        ("level stripes of 4 pixels, exactly at the limit of stride 2", edge.expand(3, -1, -1), 2, 32),
        ("red slow stripes and weak blue fast ones, stride 4", torch.stack([slow, 0 * slow, 0.5 * fast]), 4, 32),
        ("noise of 27×27 pixels on 64×64 zeros, stride 4", noise, 4, 64),
        ("noise of 27×27 pixels on 64×64 zeros, stride 2", noise, 2, 64),
    ]


def _wrong_shares(pixels: Tensor, stride: int, size: int) -> dict[str, float]:
    limit = 1 / (2 * stride)

    def share(power: Tensor, mask: Callable[[Tensor, Tensor], Tensor]) -> float:
        along = torch.fft.fftfreq(power.shape[-1], dtype=torch.float64).abs()
        where = mask(along[:, None], along[None]).expand(power.shape)
        return float(power[where].sum() / power.sum())

    def either(y: Tensor, x: Tensor) -> Tensor:
        return (y >= limit) | (x >= limit)

    power = spectrum(pixels[None], size)[0]
    plain = torch.fft.fft2(pixels.double())
    grey = spectrum(pixels.mean(0, keepdim=True)[None], size)[0]
    mistakes = {
        "energy is the square of the spectrum's size": share(power.sqrt(), either),
        "each axis is sampled on its own: the limit is a square, not a circle":
            share(power, lambda y, x: torch.hypot(y, x) >= limit),
        "what lies exactly at the limit counts as beyond": share(power, lambda y, x: (y > limit) | (x > limit)),
        "what reaches the limit on one axis is beyond, and not only what reaches it on both":
            share(power, lambda y, x: (y >= limit) & (x >= limit)),
        "the limit of a stride s is 1/(2s), not 1/s":
            share(power, lambda y, x: (y >= 2 * limit) | (x >= 2 * limit)),
        "the pixels are to be laid on size×size zeros first: fft2(…, s=(size, size))":
            share(plain.abs().square().sum(0), either),
        "the energies of the colours are added, not the colours": share(grey, either),
        "half of the frequencies of fftfreq are negative; their size counts":
            share(power, lambda y, x: (_signed(y) >= limit) | (_signed(x) >= limit)),
        "that is the part below the limit": 1 - share(power, either),
    }
    return {cause: _rounded(gives) for cause, gives in mistakes.items()}


def _signed(along: Tensor) -> Tensor:
    """The sizes of frequencies in the order of fftfreq, with their signs again."""
    size = along.numel()
    return torch.fft.fftfreq(size, dtype=torch.float64).view(along.shape)


# ---- renormalisation ----


def renormalise(function: Callable) -> None:
    """Checks ``renormalise(weight, limit)`` → filters whose RMS exceeds the limit scaled back to it."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([0.02, 0.099, 0.1, 0.101, 0.5, 3.0])
    rough = torch.randn(6, 3, 7, 7, generator=generator)
    rough = rough / rough.square().mean((1, 2, 3), keepdim=True).sqrt() * sizes[:, None, None, None]
    uneven = rough.clone()
    uneven[4, 0] = 0                                                             # two colours carry it all
    silent = torch.cat([rough[4:], torch.zeros(1, 3, 7, 7)])
    for words, weight, limit in [("filters of RMS 0.02 to 3, limit 0.1", rough, 0.1),
                                 ("one of them without red", uneven, 0.1), ("limit 1", rough, 1.0),
                                 ("a filter of zeros among them", silent, 0.1)]:
        given = case(words, function, weight, limit)
        if isinstance(given, Tensor) and not given.isfinite().all():
            raise Wrong(f"{words}: NaN or infinity came: something is divided by a filter's RMS of 0, and 0/0 is none")
        close(words, given, _renormalised(weight, limit), _wrong_weights(weight, limit))
    kept = rough.clone()
    case("filters of RMS 0.02 to 3", lambda: function(kept, 0.1))
    if not torch.equal(kept, rough):
        raise Wrong("after the call the filters that were given have changed: return new ones, or work on a clone()")
    right("each filter that is too large is shortened, and points where it did.")


def _renormalised(weight: Tensor, limit: float) -> Tensor:
    """The filters, one after the other; what training does to those that look at the paper's pixels of 0 to 255."""
    filters = []
    for one in weight:
        rms = float(one.square().mean()) ** 0.5
        filters.append(one * (limit / rms) if rms > limit else one)
    return torch.stack(filters)


def _wrong_weights(weight: Tensor, limit: float) -> dict[str, Tensor]:
    def scaled(size: Tensor) -> Tensor:
        return weight * (limit / size.clamp_min(1e-30)).clamp_max(1)

    rms = weight.square().mean((1, 2, 3), keepdim=True).sqrt()
    return {
        "filters at or below the limit stay as they are": weight * (limit / rms.clamp_min(1e-30)),
        "RMS is the root of the mean of the squares; that of their sum is the norm":
            scaled(weight.square().sum((1, 2, 3), keepdim=True).sqrt()),
        "each filter has an RMS of its own, and this is that of all": scaled(weight.square().mean().sqrt()),
        "a filter's RMS is over its three colours together": scaled(weight.square().mean((2, 3), keepdim=True).sqrt()),
        "single weights are not cut off: a filter is scaled as a whole": weight.clamp(-limit, limit),
        "the root is missing: that is the mean of the squares": scaled(rms.square()),
        "a mean that is subtracted makes it the deviation": scaled(weight.std((1, 2, 3), correction=0, keepdim=True)),
    }


# ---- near-duplicates ----


def near_duplicates(function: Callable) -> None:
    """Checks ``near_duplicates(weight, alike)`` → how many filters have another one with |cosine| above ``alike``."""
    for words, weight, alike in _families():
        found = _wrong_counts(weight, alike)
        close(words, case(words, function, weight, alike), _duplicates(weight, alike), found)
    right("a filter, its negative and its copies of other contrast are one pattern.")


def _families() -> list[tuple[str, Tensor, float]]:
    generator = torch.Generator().manual_seed(0)
    one, two, three = torch.randn(3, 3, 7, 7, generator=generator)
    near = one + 0.1 * two                                                       # |cosine| about 0.995
    return [
        ("three faint filters that are unlike", 0.01 * torch.stack([one, two, three]), ALIKE),
        ("a filter, and the same at three times the contrast", torch.stack([one, 3 * one, three]), ALIKE),
        ("a filter, and its negative", torch.stack([one, two, -one]), ALIKE),
        ("four filters, three of them alike", torch.stack([one, near, three, -2 * one]), ALIKE),
        ("two pairs", torch.stack([one, two, one, two]), ALIKE),
        ("a pair of cosine 0.995, where 0.999 is asked for", torch.stack([one, near, three]), 0.999),
    ]


def _duplicates(weight: Tensor, alike: float) -> int:
    found = measure(weight)
    if alike == ALIKE:
        return round(counts(found)["near_duplicates"] * len(weight))
    return int((found.likeness > alike).sum())


def _wrong_counts(weight: Tensor, alike: float) -> dict[str, float]:
    flat = weight.flatten(1)
    unit = torch.nn.functional.normalize(flat, dim=1)
    cosines = unit @ unit.T
    apart = ~torch.eye(len(weight), dtype=torch.bool)

    def count(values: Tensor) -> int:
        return int(((values > alike) & apart).any(1).sum())

    return {
        "a cosine is divided by both norms": count((flat @ flat.T).abs()),
        "every filter is like itself; that does not count": int((cosines.abs() > alike).any(1).sum()),
        "a negative is the same pattern: the size of the cosine counts": count(cosines),
        "filters are asked for, not pairs": int(((cosines.abs() > alike) & apart).sum()) // 2,
        "each pair is counted from both sides": int(((cosines.abs() > alike) & apart).sum()),
        "the first of a family counts too": int(torch.triu(cosines.abs() > alike, 1).any(0).sum()),
        "a number of filters is asked for, not a share": count(cosines.abs()) / len(weight),
    }
