# %% [markdown]
# # 4 · The top nine of a real network
#
# One pass over many images keeps the nine strongest activations of every unit of every layer. That is enough to see
# what a unit answers to, to find units that answer to nothing or to everything, and to give units names.
#
# The network is the ZFNet that ships: trained on 96 classes of Caltech-101, 30 photographs of each, not on ImageNet.
# The images are views of sixteen photographs. So the pictures below show how one looks; what they say about the
# paper's network is another matter, and each section says where the difference bites.

# %%
import matplotlib.pyplot as plt
import torch
import yaml
from torch.utils.data import Subset

import deconvnet
from deconvnet.course import units as check
from deconvnet.layout import beside
from deconvnet.render import layer_sheet, unit_sheet

# %%
net = deconvnet.load_model("zfnet", weights="demo")
views = deconvnet.open_images("builtin:photographs-apart", net.preprocess)
labels = torch.tensor(views.labels)  # the class of a view is its photograph
of_each = [(labels == number).nonzero()[:, 0].tolist() for number in range(len(views.classes))]
chosen = [view for some in of_each for view in some[::max(len(some) // 8, 1)]]
images, labels = Subset(views, chosen), labels[chosen]

layers = ["conv1", "conv2", "conv3", "conv4", "conv5"]
top = deconvnet.scan(net, images, layers=layers)  # one forward pass; nothing but the nine strongest is kept of a unit
print(f"{len(images)} views of {len(views.classes)} photographs:", ", ".join(views.classes))

# %% [markdown]
# ## Nine tiles for a unit
#
# Six units of `conv3`. On the left of each pair the activation's way back down to pixels (zero is mid-grey, one scale
# for the nine tiles of a unit), on the right the patches that caused it, in the same order: the strongest first, row by
# row. A grey bar in a patch lies outside the image, where the unit sees padding.

# %%
layer_sheet(list(deconvnet.gallery(net, top, "conv3", [8, 70, 133, 226, 301, 382], images)), 56, columns=3).picture()

# %% [markdown]
# **Question.** Several of a unit's patches are views of one photograph. What can then not be told from them?
#
# <details><summary>Answer</summary>
#
# Whether the unit likes the thing in the photograph, its colour, its texture or its light: whatever all views of one
# photograph share. The paper chooses among the 50,000 images of the validation set of ImageNet, so that nine different
# photographs can meet in one unit; here sixteen photographs compete.
#
# </details>
#
# ## Exercise: a running top-k
#
# The images go past in batches, and only k entries a unit may be remembered, or the memory would grow with the images.
# An entry is `(value, image, y, x)`. Each image offers its strongest position, and only a value above zero is an
# activation. For the result to be the same whatever the batches, equal values need an order too: the smaller image
# number first; and inside one map the first row, then the first column.

# %% tags=["exercise"]
def running_top(kept, maps, numbers, k):
    """The k strongest entries (value, image, y, x) of one unit, strongest first, after one more batch.

    kept: the entries so far, a list of tuples; maps: a tensor (n, h, w), the unit's map for each image of the batch;
    numbers: n of them, the number of each of these images in the data set.
    """
    # solution: add one entry for each image whose maximum is above zero, then sort by (−value, image, y, x) and cut
    entries = list(kept)
    for one, number in zip(maps, numbers, strict=True):
        y, x = divmod(int(one.argmax()), one.shape[1])  # argmax gives the first of equal ones
        if one[y, x] > 0:
            entries.append((float(one[y, x]), int(number), y, x))
    return sorted(entries, key=lambda entry: (-entry[0], *entry[1:]))[:k]
    # end of solution


# %% tags=["check"]
check.running_top(running_top)

# %% [markdown]
# Beside the nine, a scan keeps the maxima of up to 512 images, a sample. With them the nine can be watched as they
# settle. The views come photograph by photograph, and so the steps do: a new photograph either has what the unit
# answers to, or it does not.

# %%
sample = top["conv5"].sample
order = sample.images.argsort()
maxima = sample.maxima[order]                       # (images, units): each unit's strongest activation in each image
unit = int(top["conv5"].maximum.argmax())
history = [maxima[:n + 1, unit].sort(descending=True).values[:9] for n in range(len(maxima))]
starts = [n for n in range(len(labels)) if n == 0 or labels[n] != labels[n - 1]]

figure, axes = plt.subplots(figsize=(9, 3.4), layout="constrained")
for rank in range(9):
    line = [float(values[rank]) if len(values) > rank else 0 for values in history]
    axes.step(range(1, len(line) + 1), line, where="post", color=plt.cm.viridis(rank / 9), label=f"{rank + 1}")
names = [views.classes[int(labels[start])] for start in starts]
axes.set_xticks([start + 1 for start in starts], names, rotation=60, fontsize=8)
axes.set(ylabel="activation", title=f"the nine strongest activations of conv5:{unit}, view by view")
axes.legend(title="rank", fontsize=7, title_fontsize=8, ncols=3, loc="lower right")
axes.grid(alpha=0.3)

# %% [markdown]
# **Question.** `torch.topk` finds the nine largest values in one line. Why is it not enough?
#
# <details><summary>Answer</summary>
#
# It breaks ties as it likes, and there are ties: copies of a picture in a data set, even areas, units that saturate.
# With another batch size, or with two machines that share the images, other tiles would be shown. And it needs all
# values at once.
#
# </details>
#
# ## Exercise: dead units, and units that fire for everything
#
# A unit fires in an image if it is above zero anywhere. One that fires in no image is dead; one that fires in at least
# 99 % of them tells images apart badly.

# %% tags=["exercise"]
def health(maxima):
    """(dead, always): the numbers of the units that fire in no image, and in at least 99 % of the images.

    maxima: a tensor (images, units), the largest value of each unit's map in each image; negative where no ReLU came
    before.
    """
    # solution: count for each unit the images where it is above zero; nonzero()[:, 0] turns True and False into numbers
    fired = (maxima > 0).sum(0)
    return (fired == 0).nonzero()[:, 0], (fired >= 0.99 * len(maxima)).nonzero()[:, 0]
    # end of solution


# %% tags=["check"]
check.health(health)

# %% [markdown]
# The scan has counted the same. In the network that ships no unit is dead. Most units of every layer fire in every
# view, which says less about them than about the measure: `conv5` has 169 positions, and one above zero is enough. The
# picture on the right asks the sharper question, at which share of the *positions* a unit fires.

# %%
maps = deconvnet.record(net, torch.stack([images[n][0] for n in range(0, len(images), 12)]))
for layer in layers:
    found = top[layer]
    print(f"{layer}: {len(found.fired)} units, {len(found.dead)} dead, {len(found.always)} fire in 99 % of the views")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
for number, layer in enumerate(layers):
    positions = (maps.activations(layer) > 0).float().mean((0, 2, 3))      # (units,)
    for axes, shares in ((left, top[layer].fires), (right, positions)):
        counts, edges = torch.histogram(shares, 20, range=(0, 1))
        axes.stairs(counts / len(shares), edges, color=plt.cm.viridis(number / 5), label=layer, linewidth=1.4)
left.set(xlabel="share of the views in which a unit fires", ylabel="share of the units")
right.set(xlabel="share of the positions at which it fires")
left.legend(fontsize=8)
left.grid(alpha=0.3)
right.grid(alpha=0.3)

# %% [markdown]
# A network that ships is healthy. Here is one that is not: five units of `conv3`, chosen by lot, got what too large a
# step in training can leave behind. Three have a bias so low that nothing reaches zero any more, two have lost their
# weights and give the same everywhere. The scan goes no further than `conv3`, so it is cheap.

# %%
sick = deconvnet.load_model("zfnet", weights="demo")
victims = torch.randperm(384, generator=torch.Generator().manual_seed(4))[:5]
with torch.no_grad():
    sick.conv3.bias[victims[:3]] = -1000
    sick.conv3.weight[victims[3:]] = 0
    sick.conv3.bias[victims[3:]] = 2

few = Subset(images, range(0, len(images), 4))
ill = deconvnet.scan(sick, few, layers=["conv3"])
values = ill["conv3"].sample.maxima                                          # (images, units)
flat = (values.std(0) < 0.01 * values.mean(0)).nonzero()[:, 0]               # the same in every image
print("dead:", ill["conv3"].dead.tolist(), " fires and never varies:", flat.tolist(), " victims:", victims.tolist())
units = [int(ill["conv3"].dead[0]), int(flat[0])]
beside(*[unit_sheet(one, 1, 9) for one in deconvnet.gallery(sick, ill, "conv3", units, few)], gap=8).picture()

# %% [markdown]
# A dead unit has no tiles. The other has nine, all from the corner of the first nine views, where the order among
# equals put them; its reconstructions are grey throughout, for without weights nothing comes down.
#
# ## Exercise: does a unit prefer a class?
#
# Morcos et al. (2018) compare the class for which a unit answers most, on average, with the others:
#
# $$\text{selectivity} = \frac{\mu_{max} - \mu_{rest}}{\mu_{max} + \mu_{rest}}$$
#
# $\mu_{rest}$ is the mean of the other classes' means. 0 is a unit to which all classes are alike, 1 one that fires for
# a single class.

# %% tags=["exercise"]
def selectivity(maxima, labels):
    """The selectivity of each unit, (units,); 0 for a dead one.

    maxima: a tensor (images, units), none negative; labels: a tensor (images,), the class of each. A class without
    images does not count.
    """
    # solution: the mean of each class first, then the largest of them against the mean of the others
    means = torch.stack([maxima[labels == number].mean(0) for number in labels.unique()])    # (classes, units)
    highest = means.amax(0)
    rest = (means.sum(0) - highest) / (len(means) - 1)
    return torch.where(highest > 0, (highest - rest) / (highest + rest), 0)
    # end of solution


# %% tags=["check"]
check.selectivity(selectivity)

# %%
found = top["conv5"]
picks = [int(found.selectivity.argmax()), int(found.selectivity.argmin())]
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for place, unit in zip(axes, picks, strict=True):
    place.bar(views.classes, found.class_means[:, unit].numpy(), color="#204080")
    place.tick_params(axis="x", rotation=75, labelsize=8)
    place.set(title=f"conv5:{unit}, selectivity {float(found.selectivity[unit]):.2f}", ylabel="mean of the maxima")

# %%
layer_sheet(list(deconvnet.gallery(net, top, "conv5", picks, images)), 64, columns=2,
            title="conv5: the most and the least selective unit").picture()

# %% [markdown]
# **Question.** Is a unit with a high selectivity here a detector of a thing?
#
# <details><summary>Answer</summary>
#
# Not on this evidence. A class here is one photograph, so a unit that answers to its texture or to its brightness is as
# selective as one that answers to the thing in it. And with few images a class the means are noisy, so that the highest
# of 256 units is high by chance as well: shuffle the labels and look how high the highest still is.
#
# </details>

# %%
shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
means = torch.stack([maxima[shuffled == number].mean(0) for number in shuffled.unique()])
highest = means.amax(0)
rest = (means.sum(0) - highest) / (len(means) - 1)
chance = (highest - rest) / (highest + rest)

figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
for values, name, colour in ((found.selectivity, "photographs as classes", "#c05020"), (chance, "shuffled", "0.4")):
    axes.hist(values.numpy(), bins=30, range=(0, 1), histtype="step", label=name, color=colour)
axes.set(xlabel="selectivity of the units of conv5", ylabel="units")
axes.legend(fontsize=8)
axes.grid(alpha=0.3)

# %% [markdown]
# ## Exercise: names for units
#
# The last step is done by a person, who looks at nine tiles and writes a word. Labels are kept in a YAML file that maps
# addresses to words, and the atlas takes such a file:
#
#     conv5:147: wheels
#     conv3:8: mesh
#
# YAML guesses types, which is why no one should put its quotes by hand:

# %%
yaml.safe_load("{conv5:1: no, conv5:2: 12, conv5:3: rim # not the tyre\n}")

# %% tags=["exercise"]
def write_labels(labels, sizes):
    """YAML that, read back, is ``labels`` again, with letters such as ö left as they are.

    labels: address → words, such as {"conv5:147": "wheels"}; sizes: how many units each layer has. Raises ValueError,
    with the address in it, for an address that names no unit.
    """
    # solution: check layer and number of every address, then yaml.safe_dump(…, allow_unicode=True)
    for address in labels:
        layer, _, unit = address.rpartition(":")
        if layer not in sizes or not unit.isdecimal() or int(unit) >= sizes[layer]:
            raise ValueError(f"no unit has the address {address!r}")
    return yaml.safe_dump(labels, allow_unicode=True, sort_keys=False)
    # end of solution


# %% tags=["check"]
check.write_labels(write_labels)

# %% [markdown]
# Four units of `conv5`, to be named. Look at the reconstructions first and say what they share; then at the patches.

# %%
unnamed = [44, 83, 147, 200]
layer_sheet(list(deconvnet.gallery(net, top, "conv5", unnamed, images)), 72, columns=2).picture()

# %%
mine = {"conv5:44": "?", "conv5:83": "lines of print", "conv5:147": "?", "conv5:200": "?"}  # your words instead
text = write_labels(mine, {layer: len(top[layer].fired) for layer in layers})
print(text)  # to keep it: Path("labels.yaml").write_text(text, encoding="utf-8"), with Path from pathlib

# %% [markdown]
# **Question.** You have named a unit. How would you find out whether the name is right?
#
# <details><summary>Answer</summary>
#
# A name is a guess from nine cases that were chosen because they are extreme. Try it on images that had no part in the
# choice: collect some that fit the name and some that nearly do, and see whether the unit tells them apart. Look at
# the middle of its range too, not only at the top. And take away what the name speaks of, which is the subject of
# notebook 6.
#
# </details>
