# %% [markdown]
# # 5 · AlexNet against ZFNet
#
# Zeiler and Fergus looked at the first two layers of AlexNet and saw two troubles: filters of extremely high and low
# frequency with little between, and aliasing in the second layer, which they laid to the stride of 4. Their answer was
# a first layer of 7×7 instead of 11×11 pixels, every 2 pixels instead of every 4. Here the two are compared in
# numbers.
#
# The two networks that ship learned from the same 2,880 photographs of Caltech-101 on the same schedule. Their first
# filters **began** as k-means centroids of patches, which are edges and colours already, and moved little; so one half
# of the paper's story, the extremes, cannot appear. The other half is geometry, and geometry needs no training.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import Image
from torch.utils.data import Subset

import deconvnet
from deconvnet.compare import beyond, counts, measure, nyquist, spectrum
from deconvnet.course import settings_compared as check
from deconvnet.exhibit import png
from deconvnet.figures.selection import STEPS, Seen, draw_filters, draw_numbers
from deconvnet.layout import beside
from deconvnet.render import reconstruction_sheet

# %%
alexnet = deconvnet.load_model("alexnet_dense", weights="demo")  # without the two towers
zfnet = deconvnet.load_model("zfnet", weights="demo")
first = {"AlexNet": alexnet.conv1.weight.detach(), "ZFNet": zfnet.conv1.weight.detach()}
panels = [draw_filters(weight.numpy(), f"{name}: {tuple(weight.shape)}") for name, weight in first.items()]
beside(*panels, gap=16).picture()

# %% [markdown]
# All 96 filters of each network, column by column, on one symmetric scale a panel; zero is mid-grey. A filter that
# looks grey is faint beside the others.
#
# The sizes multiply on the way up: what a unit sees, and how far apart neighbouring units look.

# %%
print("layer    AlexNet: sees, every    ZFNet: sees, every   (pixels)")
for layer in ("conv1", "conv2", "conv3", "conv4", "conv5"):
    fields = [deconvnet.receptive_field(net, layer, (net.preprocess.size,) * 2) for net in (alexnet, zfnet)]
    print(layer, *[f"{field.size[0]:19d} {field.stride[0]:4d}" for field in fields])

# %% [markdown]
# ## What a stride does to a wave
#
# A map with stride 4 has one sample in four pixels. The samples of a fast wave can then lie just where those of a slow
# wave would lie (below), and nothing above that layer can tell which of the two it was. With stride 2 (above) the
# samples in between show it.

# %%
x = torch.linspace(0, 32, 1000)
figure, axes = plt.subplots(2, 1, figsize=(9, 3.8), layout="constrained", sharex=True)
for place, stride in zip(axes, (2, 4), strict=True):
    samples = torch.arange(0, 33, stride)
    place.plot(x, torch.cos(2 * torch.pi * 7 / 32 * x), color="0.7", label="7 cycles in 32 pixels")
    place.plot(x, torch.cos(2 * torch.pi * 1 / 32 * x), color="#c05020", linestyle="--", label="1 cycle in 32 pixels")
    place.plot(samples, torch.cos(2 * torch.pi * 7 / 32 * samples), "o", color="black", label="samples of the fast one")
    place.set(ylabel=f"stride {stride}", yticks=[])
figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="outside upper center", ncols=3)
axes[1].set_xlabel("pixels")
axes[1].grid(alpha=0)

# %% [markdown]
# ## Exercise: as what does a frequency appear?
#
# A map with one sample in `stride` pixels carries frequencies below `1/(2·stride)` cycles per pixel, the limit of
# Nyquist. A faster wave appears as the slow wave that goes through the same samples: from one sample to the next the
# two differ by whole cycles.

# %% tags=["exercise"]
def appears_as(frequency, stride):
    """The frequency, 0 to 1/(2·stride), as which samples ``stride`` pixels apart show it; both in cycles per pixel."""
    # solution: from sample to sample a wave goes frequency·stride cycles; whole ones do not show
    cycles = frequency * stride
    return abs(cycles - round(cycles)) / stride
    # end of solution


# %% tags=["check"]
check.appears_as(appears_as)

# %% [markdown]
# Is that what the two networks do? Gratings of 23 frequencies go through each first layer. In the map that answers most
# strongly the frequency is measured, on the filters' own output, before the ReLU and without the bias.


# %%
def frequency_in_map(net, frequency):
    """The frequency (cycles per pixel) that the strongest map of conv1 shows when the stripes have this one."""
    size = net.preprocess.size
    wave = torch.cos(2 * torch.pi * frequency * torch.arange(size))
    stripes = wave.expand(1, 3, size, size)                                      # (1, 3, H, W)
    maps = F.conv2d(stripes, net.conv1.weight.detach(), stride=net.conv1.stride)[0, :, 0]    # (units, W'), one row
    strongest = maps[maps.square().sum(1).argmax()]
    power = torch.fft.rfft(strongest * torch.hann_window(len(strongest)), n=4096).abs()
    return float(power.argmax()) / 4096 / net.conv1.stride[1]


given = torch.arange(1, 24) / 48
figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name, net, colour, mark, size in (("AlexNet", alexnet, "#c05020", "o", 8), ("ZFNet", zfnet, "#204080", ".", 7)):
    seen = [frequency_in_map(net, float(frequency)) for frequency in given]
    axes.plot(given, seen, mark, color=colour, markersize=size, fillstyle="none" if mark == "o" else "full",
              label=f"{name}, stride {net.conv1.stride[1]}")
    axes.axhline(nyquist(net.conv1.stride)[1], color=colour, linewidth=0.8, linestyle="--")
axes.plot([0, 0.5], [0, 0.5], color="0.7", linewidth=0.8, zorder=0)
axes.set(xlabel="frequency of the stripes, cycles per pixel", ylabel="frequency in the map")
axes.legend(fontsize=8, title="dashed: limit", title_fontsize=8)
axes.grid(alpha=0.3)

# %% [markdown]
# **Question.** AlexNet's map shows stripes of 4 pixels as something even. Does AlexNet therefore not notice them?
#
# <details><summary>Answer</summary>
#
# It notices *that* something is there, for a filter that fits them answers, with one value everywhere; which one
# depends on where the stripes lie. What is lost is their position within 4 pixels: moved by a pixel, the same stripes
# give another even value, and a layer above cannot tell such a movement from a change of contrast.
#
# </details>
#
# ## Exercise: how much of a picture lies beyond the limit?
#
# The energy of a picture is the sum of its squared pixels, and equally the sum over its spectrum (Parseval). Each axis
# is sampled on its own, so what reaches the limit along *either* axis lies beyond. A small picture is laid on zeros
# first, so that its frequencies are fine enough.

# %% tags=["exercise"]
def share_beyond(pixels, stride, size=128):
    """Which part of the energy of pixels (3, h, w), 0 to 1, lies at or beyond 1/(2·stride) along either axis.

    The colours' energies are added. The pixels are laid on size×size zeros.
    """
    # solution: torch.fft.fft2(pixels, s=(size, size)), its size squared, summed over colours; torch.fft.fftfreq(size)
    power = torch.fft.fft2(pixels.double(), s=(size, size)).abs().square().sum(0)            # (size, size)
    along = torch.fft.fftfreq(size).abs()                                                    # (size,), 0 to 1/2
    limit = 1 / (2 * stride)
    out = (along[:, None] >= limit) | (along >= limit)
    return float(power[out].sum() / power.sum())
    # end of solution


# %% tags=["check"]
check.share_beyond(share_beyond)

# %% [markdown]
# Now the second layers, as the paper's Figure 6 (d, e): twelve maps of each, nine projections a map, on one scale a
# map. Tiles are enlarged by whole numbers; one of AlexNet's covers nearly four times the area. The library measures 32
# maps of each as you did.


# %%
def look(name, net):
    """What the library's comparison needs to know of a network."""
    photographs = deconvnet.open_images("builtin:photographs-apart", net.preprocess)
    images = Subset(photographs, range(0, len(photographs), 4))
    top = deconvnet.scan(net, images, layers=["conv1", "conv2"])
    shown = list(deconvnet.gallery(net, top, "conv2", range(0, 256, 8), images))
    power = [spectrum(torch.from_numpy(one.reconstructions)).sum(0, keepdim=True) for one in shown]
    aliased = np.array([float(beyond(one, nyquist(net.conv1.stride))) for one in power])
    energy = np.array([[float(beyond(one, (step, step))) for step in STEPS] for one in power])
    weight = net.conv1.weight.detach()
    dead = len(top["conv1"].dead)
    return Seen(name, "conv1", "conv2", net.conv1.stride, weight.numpy(), measure(weight), dead, shown, aliased, energy)


sides = [look("AlexNet", alexnet), look("ZFNet", zfnet)]
sheets = [reconstruction_sheet(side.shown[:12], 54, columns=4, title=f"{side.name}: {side.second}, a tile is "
                               f"{side.shown[0].patches.shape[1]} pixels") for side in sides]
beside(*sheets, gap=8).picture()

# %% [markdown]
# All that `deconvnet compare` measures: six histograms of the first layer's filters, and for the second layer the
# share of energy beyond each network's own limit (which you have just computed), and beyond any frequency; its upright
# lines are the two limits.

# %%
Image(png(draw_numbers(sides), {}), width=1000)

# %%
quarter = list(STEPS).index(0.25)
for side in sides:
    limit = nyquist(side.stride)[0]
    print(f"{side.name}: limit {limit:g} cycles per pixel; of the energy of a map's projections (median of "
          f"{len(side.aliased)} maps)\n   {np.median(side.aliased):.0%} at and beyond its own limit, "
          f"{np.median(side.energy[:, quarter]):.0%} at and beyond 1/4; dead filters: {side.dead}")

# %% [markdown]
# **Question.** At and beyond 1/4 cycle per pixel ZFNet's projections hold *more* energy than AlexNet's. Is that worse?
#
# <details><summary>Answer</summary>
#
# No. It has smaller filters, which hold finer detail, and most of what it shows lies below its own limit, which is
# twice as high. What counts is the share beyond a network's *own* limit, for that is what its first map cannot place.
# There AlexNet has clearly more.
#
# </details>
#
# **Question.** Does this show that the stride makes a network worse?
#
# <details><summary>Answer</summary>
#
# It shows that the second layer works on samples that are confused, not what that costs. The paper's networks differ
# in filter size and stride at once, and theirs are 40.5 against 38.4 % wrong on ImageNet's validation set (its Table
# 3). Of the two that ship, their cards say, AlexNet recognises 64 and ZFNet 67 % of held-out photographs, in one run
# each, on another set. To blame the stride it has to be changed alone: `configs/train/first_layer` has a recipe for
# each change by itself.
#
# </details>
#
# ## Exercise: renormalisation
#
# The paper scales any filter whose RMS exceeds 1e-1 back to 1e-1, because otherwise a few of the first layer's filters
# dominate. RMS is the root of the mean of the squares of all the filter's weights; for 3×7×7 of them an RMS of 0.1 is a
# norm of 0.1·√147 = 1.21.

# %% tags=["exercise"]
def renormalise(weight, limit=0.1):
    """Filters (units, 3, h, w) like ``weight``, but those with an RMS above the limit scaled back to it."""
    # solution: one RMS for each filter, over dimensions 1, 2 and 3 (keepdim=True); torch.where leaves the others alone
    rms = weight.square().mean((1, 2, 3), keepdim=True).sqrt()                   # (units, 1, 1, 1)
    return torch.where(rms > limit, weight * limit / rms, weight)
    # end of solution


# %% tags=["check"]
check.renormalise(renormalise)

# %% [markdown]
# Two first layers of ZFNet ship that were found by descent alone, from random numbers, on pixels of about −128 to 128:
# one without this line, one with it. Both panels have one scale each.

# %%
grown = {"no limit": deconvnet.load_model("zfnet", weights="unrestrained").conv1.weight.detach(),
         "RMS at most 0.1": deconvnet.load_model("zfnet", weights="restrained").conv1.weight.detach()}
beside(*[draw_filters(weight.numpy(), name, 36) for name, weight in grown.items()], gap=16).picture()

# %%
figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
for (name, weight), colour in zip(grown.items(), ("#c05020", "#204080"), strict=True):
    norms = weight.flatten(1).norm(dim=1).sort(descending=True).values
    words = f"{name}: largest {norms[0]:.2f}, largest / median {norms[0] / norms.median():.2f}"
    axes.plot(norms, ".-", color=colour, label=words)
axes.axhline(0.1 * 147 ** 0.5, color="0.5", linewidth=0.8, linestyle="--")
axes.set(xlabel="filters, sorted", ylabel="norm", ylim=(0, None))
axes.legend(fontsize=8)
axes.grid(alpha=0.3)

# %% [markdown]
# The line does what it says. But no filter of the left panel dominates as in the paper's Figure 6 (a): these networks
# were trained with batch normalisation, which makes a filter's norm meaningless to the layers above and stops its
# growth; without it neither recipe learned anything in the time there was. And both have many plain colours, which is
# what descent alone finds in so few images.
#
# ## Exercise: near-duplicates
#
# Two filters are near-duplicates if the size of their cosine is above 0.95: one pattern, whatever its contrast and
# sign.

# %% tags=["exercise"]
def near_duplicates(weight, alike=0.95):
    """How many of the filters (units, 3, h, w) have at least one other with |cosine| above ``alike``."""
    # solution: rows of length one, their products with each other, and no filter compared with itself
    rows = F.normalize(weight.flatten(1), dim=1)
    cosines = (rows @ rows.T).abs().fill_diagonal_(0)                            # (units, units)
    return int((cosines.amax(1) > alike).sum())
    # end of solution


# %% tags=["check"]
check.near_duplicates(near_duplicates)

# %% [markdown]
# All shares that the paper speaks of, for the four first layers of this notebook. *Slow* and *fast*: more than half of
# the energy below 1/8, or at and above 3/8, cycle per pixel; *faint*: a norm below a tenth of the median; *plain*: more
# than 70 % of the energy in the mean colour.

# %%
everything = {**first, "no limit": grown["no limit"], "with limit": grown["RMS at most 0.1"]}
print(f"{'':<18}" + "".join(f"{name:>12}" for name in everything))
found = [counts(measure(weight)) for weight in everything.values()]
for name in found[0]:
    print(f"{name:<18}" + "".join(f"{one[name]:>12.0%}" for one in found))

# %% [markdown]
# **Question.** Which of the paper's observations do these four confirm, and on which can they say nothing?
#
# <details><summary>Answer</summary>
#
# Geometry: a stride of 4 leaves more of the second layer beyond the limit than a stride of 2. Nothing can be said on
# the mix of extremes, on dead filters, or on repeated ones: the k-means beginning excludes them in AlexNet and ZFNet
# alike (0 % near-duplicates in each). For that one would train both from random numbers on ImageNet, as the paper did.
#
# </details>
#
# The whole comparison, with all 472 views and a page of captions, is one command:
# `deconvnet compare alexnet_dense zfnet --weights1 demo --weights2 demo`.
