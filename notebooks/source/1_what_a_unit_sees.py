# %% [markdown]
# # 1 · What does a unit see?
#
# A convolutional network looks at a photograph through thousands of small detectors, its **units**. This notebook
# finds out which part of the photograph one of them looks at, which photographs it likes best, and what it has
# learned to look for.
#
# On the way you write five short functions. Each is followed by a **check**: it says `Right`, or it says what is not
# right yet. Where a cell raises `NotImplementedError`, it is your turn; the error is the hint. Look at the pictures
# first, guess, and only then run the next cell.

# %%
import numpy as np
import torch

import deconvnet
from deconvnet import colours
from deconvnet.course import pictures
from deconvnet.course import sees as check

net = deconvnet.load_model("zfnet", weights="demo")                  # the network of Zeiler and Fergus, trained small
photographs = deconvnet.open_images("builtin:photographs", net.preprocess)
views = ["astronaut@0.44+000+000", "coffee@0.56+000+000", "coins@0.74+000+000", "camera@0.44+000+000"]
four = [photographs.files.index(view) for view in views]             # a view is a photograph, scaled and cropped
images = torch.stack([photographs[n][0] for n in four])              # (4, 3, 224, 224), what the network is fed
shown = [photographs.image(n) for n in four]                         # (224, 224, 3) each, what we look at
pictures.row(shown, ["astronaut", "coffee", "coins", "camera"], caption="Four of the photographs: 224×224 pixels each.")

# %% [markdown]
# ## A unit, its map, its activations
#
# The first layer of ZFNet has 96 units. Each slides one small filter over the photograph and writes down, at every
# place, how well the filter fits: its **feature map**. Where it does not fit at all the answer is negative, and a ReLU
# makes it zero. One value of the map is an **activation**.

# %%
tape = deconvnet.record(net, images)                                 # runs the network, and keeps all that it computes
maps = tape.activations("conv1")                                     # (4, 96, 110, 110): photograph, unit, y, x
print("photographs, units, rows, columns:", tuple(maps.shape))
pictures.row([shown[1]] + [maps[1, unit] for unit in (71, 70, 36, 42)],
             ["the photograph"] + [f"conv1:{unit}" for unit in (71, 70, 36, 42)],
             caption="Feature maps of four units of layer 1 (110×110). Black is zero: the unit does not find there "
                     "what it looks for.\nWhite is its strongest activation. "
                     "conv1:71 means unit 71 of layer conv1, counted from 0.")

# %% [markdown]
# **Question.** Two of these units like edges between blue and orange. One likes upright edges, the other level ones.
# Which is which? Guess from where the maps are white.
# <details><summary>Answer</summary>
#
# conv1:71 is white at the left and right sides of the cup and of the saucer, where their rims run upright; conv1:70
# is white at the top and bottom, where they run level. Section 5 shows the filters, and you can see whether that is
# right.
# </details>
#
# ## 1 · One step down
#
# What does one activation look at? Begin with a row of ten pixels instead of a photograph. A layer with **kernel** 3,
# **stride** 2 and **padding** 1 adds one zero at either end, lays a window of 3 on the row, and moves it by 2 at a
# time.

# %%
row = np.pad(np.arange(10.0), 1, constant_values=np.nan)             # the numbers of the pixels, nothing at either end
seen = np.zeros((5, 12))
for cell in range(5):
    seen[cell, 2 * cell:2 * cell + 3] = 1                            # the window of each output cell
pictures.tables([row, seen], ["pixels 0 … 9, the padding grey", "1: what output cells 0 … 4 look at, row by row"],
                marks=[[(0, 0), (0, 1), (0, 2)], [(0, 0), (0, 1), (0, 2)]],
                caption="Framed: what output cell 0 looks at, which is the padding and pixels 0 and 1. So it begins at "
                        "pixel −1.\nThe right table has the same twelve columns, and a row for each output cell.\n"
                        "Cell 1 looks at pixels 1, 2, 3. Two neighbouring windows overlap by one pixel.")

# %% [markdown]
# ### Exercise 1
# Several neighbouring output cells, `count` of them from cell `first` on, look at one stretch of cells of the layer
# below. Where does it begin, and how long is it? Try it on the table above: cells 1 and 2 look at pixels 1 … 5.

# %% tags=["exercise"]
def cells_below(first, count, kernel, stride, padding):
    """The first cell below (negative in the padding), and how many, as two whole numbers."""
    # solution: cell 0 begins at −padding, each further cell begins stride later, and the last is kernel long
    return first * stride - padding, (count - 1) * stride + kernel
    # end of solution


# %% tags=["check"]
check.cells_below(cells_below)

# %% [markdown]
# ## 2 · All the way to the pixels
#
# Layers stand upon layers. One cell of the third layer looks at some cells of the second, these look at more cells of
# the first, and these at pixels. The part of the image that one activation can see is its **receptive field**.

# %%
zfnet = {  # kernel, stride, padding, from the image up, as in the paper
    "conv1": (7, 2, 1), "pool1": (3, 2, 0), "conv2": (5, 2, 0), "pool2": (3, 2, 0),
    "conv3": (3, 1, 1), "conv4": (3, 1, 1), "conv5": (3, 1, 1),
}

# %% [markdown]
# **Question.** No filter of this network is larger than 7×7. Guess before you compute: how many pixels wide is what
# one activation of `conv5` sees? 20, 60, 140?
# <details><summary>Answer</summary>
#
# About 140: exactly 139. Every stride below a layer multiplies the steps of that layer: the strides of conv1, pool1,
# conv2 and pool2 make 2·2·2·2 = 16, so that one step on the map of conv3 is 16 pixels. A 3×3 filter there widens the
# field by (3 − 1)·16 = 32 pixels, and there are three such layers.
# </details>
#
# ### Exercise 2
# Trace one cell of the top layer down to the pixels. Use your `cells_below`, or do it anew. Mind the order.

# %% tags=["exercise"]
def trace(layers, cell):
    """The first pixel and how many pixels one cell of the last of the layers sees, along one axis.

    ``layers`` is a list of (kernel, stride, padding) from the image up, such as ``list(zfnet.values())``.
    """
    # solution: begin with (cell, 1) and step down through the layers, the last one first
    first, count = cell, 1
    for kernel, stride, padding in reversed(layers):
        first, count = first * stride - padding, (count - 1) * stride + kernel
    return first, count
    # end of solution


# %% tags=["check"]
check.trace(trace)

# %% [markdown]
# The library has this arithmetic too: `deconvnet.receptive_field`. These are the fields of all layers, and those of
# one unit in the middle of each map.

# %%
layers = ["conv1", "conv2", "conv3", "conv4", "conv5"]
fields = {layer: deconvnet.receptive_field(net, layer) for layer in layers}
for layer, field in fields.items():
    (height, width), (step, _), (start, _) = field.size, field.stride, field.start
    print(f"{layer}: sees {height:3}×{width} pixels, its neighbour {step:2} pixels on, cell 0 begins at pixel {start}")
middle = {layer: tape.activations(layer).shape[-1] // 2 for layer in layers}
pictures.row([shown[0]] * 5, [f"{layer}, cell ({middle[layer]}, {middle[layer]})" for layer in layers],
             boxes=[fields[layer].box(middle[layer], middle[layer]) for layer in layers],
             caption="What one activation of each layer sees of the photograph: a spot of the collar in layer 1, "
                     "more than half of the picture's width in layer 5.")

# %% [markdown]
# The formula, now that you have it as a loop: with kernels *k* and strides *s*, the field of layer *n* is 1 + Σ (*kᵢ*
# − 1)·(*s*₁ ⋯ *sᵢ*₋₁) pixels wide, summed over the layers 1 … *n*, and one step on its map is *s*₁ ⋯ *sₙ* pixels.
#
# **Is that really all that it sees?** Put noise everywhere outside the box. If the box is right, the activation
# stays.

# %%
unit, (y, x) = 242, (6, 6)
(top, left), (height, width) = fields["conv5"].box(y, x)
noisy = torch.randn(images[2:3].shape, generator=torch.manual_seed(0))
noisy[:, :, top:top + height, left:left + width] = images[2:3, :, top:top + height, left:left + width]
moved = noisy.clone()                                                # and here the coins 40 pixels further right
moved[:, :, top:top + height, left + 40:left + width] = noisy[:, :, top:top + height, left:left + width - 40]
views = [images[2:3], noisy, moved]
values = [float(deconvnet.record(net, view).activations("conv5")[0, unit, y, x]) for view in views]
print("the noise changes the activation by", values[1] - values[0])
pictures.row([net.preprocess.inverse(view)[0] for view in views],
             [f"conv5:{unit} at ({y}, {x}): {value:.4f}" for value in values],
             boxes=[((top, left), (height, width))] * 3,
             caption="The coins; noise everywhere outside the field; the coins moved within the field.\n"
                     "Only what lies in the box counts.")

# %% [markdown]
# ## 3 · The patch
#
# The image under a receptive field is the **patch**. Fields of units near the border reach over it: into the padding,
# where the network is fed zeros. There is no photograph there, so we draw **mid-grey** (128), and every patch keeps
# its size.
#
# ### Exercise 3
# Cut out a patch. In NumPy a negative index counts from the far end, so a slice that begins at −5 is not what you
# want. A window may also lie wholly outside the image; then its end can be negative too.

# %% tags=["exercise"]
def patch(image, top, left, height, width):
    """The window of an image (H, W, 3) from pixel (top, left): (height, width, 3) uint8, 128 outside the image."""
    # solution: begin with a patch that is all 128, and copy the pixels that lie both in the window and in the image
    out = np.full((height, width, 3), 128, dtype=np.uint8)
    for y in range(max(top, 0), min(top + height, image.shape[0])):
        for x in range(max(left, 0), min(left + width, image.shape[1])):
            out[y - top, x - left] = image[y, x]
    return out
    # end of solution


# %% tags=["check"]
check.patch(patch)

# %%
cells = [(6, 6), (0, 0), (12, 6)]
boxes = [fields["conv5"].box(y, x) for y, x in cells]
pictures.row([shown[2], *[patch(shown[2], *box.start, *box.size) for box in boxes]],
             ["the coins", *[f"patch of ({y}, {x})" for y, x in cells]], boxes=[boxes],
             caption="Three cells on the 13×13 map of conv5, and what each sees. Grey lies outside the photograph.")

# %% [markdown]
# ## 4 · The nine patches
#
# What does a unit look *for*? Show it many photographs, and keep the nine patches that it answers most strongly. In
# the paper every photograph may give one patch only; otherwise one tripod would fill all nine places.
#
# ### Exercise 4
# From the map of one unit for each photograph, find the strongest activations. A unit that is silent in a photograph
# has no patch there, so there may be fewer than `k`.

# %% tags=["exercise"]
def strongest(maps, k):
    """The k strongest activations of one unit as a list of (image, y, x), strongest first.

    ``maps`` is an array (N, H, W), one map for each photograph. At most one from each photograph; only values above 0.
    """
    # solution: maps[n].argmax() and np.unravel_index give the place in photograph n; then sort the photographs by value
    places = [np.unravel_index(one.argmax(), one.shape) for one in maps]
    values = np.array([one[place] for one, place in zip(maps, places, strict=True)])
    order = np.argsort(-values, kind="stable")[:k]
    return [(int(n), int(places[n][0]), int(places[n][1])) for n in order if values[n] > 0]
    # end of solution


# %% tags=["check"]
check.strongest(strongest)

# %%
many = deconvnet.open_images("builtin:photographs-apart", net.preprocess)
numbers = range(0, len(many), 8)                                     # 59 of 472 views of sixteen photographs
batches = torch.stack([many[n][0] for n in numbers]).split(8)
answers = torch.cat([deconvnet.record(net, batch).activations("conv3") for batch in batches])   # (59, 384, 13, 13)


def nine(unit):
    """The nine patches of a unit of conv3, by your own functions."""
    found = strongest(answers[:, unit].numpy(), 9)
    at = [fields["conv3"].box(y, x) for _, y, x in found]
    tiles = [patch(many.image(numbers[n]), *box.start, *box.size) for (n, _, _), box in zip(found, at, strict=True)]
    return pictures.row(tiles, [f"{answers[n, unit, y, x]:.1f}" for n, y, x in found], height=0.9,
                        caption=f"The nine patches of conv3:{unit} (75×75 pixels), with their activations.")


nine(288)

# %%
nine(282)

# %% [markdown]
# Each view counts as a photograph of its own here, so conv3:282 has the leg of one tripod from three views.
#
# Try other units of conv3 (0 … 383). What do the nine have in common, and what do they not? What they have in common
# is what the unit looks for. Patches alone leave much open: is it the arch or the dark under it? Layer 1 shows the
# way.

# %% [markdown]
# ## 5 · Two ways to see layer 1
#
# **The first way: draw the filters.** A filter of layer 1 has 3 colours and 7×7 pixels, so it is a picture already.
# Its numbers are signed: **mid-grey is zero**, brighter is above, darker below.

# %%
filters = net.conv1.weight.detach()                                  # (96, 3, 7, 7)
liked = [71, 70, 36, 42, 31, 14, 87, 29]
pictures.row([colours.normalise(filters[unit].numpy()) for unit in liked], [f"conv1:{unit}" for unit in liked],
             height=0.9, caption="Eight filters of layer 1. Each is scaled by itself; mid-grey is zero.")

# %% [markdown]
# **The second way: take one activation and send it back.** Keep one activation of one unit, set all others to zero,
# and send it down through the filters to the pixels where it came from. That is a **projection**, and the library
# does it in one line. You build it yourself in notebook 3.

# %%
maps = tape.activations("conv1")
where = {unit: np.unravel_index(int(maps[1, unit].argmax()), (110, 110)) for unit in liked}
down = deconvnet.project(tape, "conv1", [(1, unit, *map(int, where[unit])) for unit in liked])
print("projections:", tuple(down.pixels.shape), "— activations:", [round(value, 1) for value in down.values.tolist()])
pictures.row([colours.normalise(pixels.numpy()) for pixels in down.pixels], [f"conv1:{unit}" for unit in liked],
             height=0.9, caption="The strongest activation of each of these units in the photograph of the coffee, "
                                 "projected.")

# %% [markdown]
# ### Exercise 5
# The two rows look the same. Why? Upwards, an activation is the sum of (pixel × weight) over its window, plus a bias.
# On the way down, one number goes back to each pixel of the window along the same weights, without bias. Write that
# down.

# %% tags=["exercise"]
def project_first_layer(filters, unit, activation):
    """One activation of a unit of layer 1 in pixels, (3, 7, 7). ``filters`` is the tensor (96, 3, 7, 7)."""
    # solution: each pixel of the window gets the activation times the weight by which it contributed
    return activation * filters[unit]
    # end of solution


# %% tags=["check"]
check.project_first_layer(project_first_layer)

# %%
for unit, pixels, value in zip(liked, down.pixels, down.values, strict=True):
    likeness = np.corrcoef(pixels.flatten(), filters[unit].flatten())[0, 1]
    scale = float((pixels / filters[unit]).mean())
    print(f"conv1:{unit}: correlation {likeness:.6f}, projection ÷ filter {scale:.4f}, activation {float(value):.4f}")

# %% [markdown]
# They agree up to a scale, and the scale is the activation itself. For layer 1 the projection tells nothing new.
#
# **Question.** Why do we need projections at all, then? Try the first way on layer 2: what would `net.conv2.weight`,
# which has the shape (256, 96, 5, 5), look like as a picture?
# <details><summary>Answer</summary>
#
# It is no picture: a filter of layer 2 weighs 96 feature maps, not 3 colours. Its 96 little 5×5 squares can be drawn,
# but no one can see from them what pattern *in the image* they make up, because between them and the pixels lie layer
# 1, a ReLU and a pooling. A projection goes through all of these, and arrives as a picture with 3 colours.
# </details>

# %%
top = deconvnet.scan(net, torch.cat(batches), layers=["conv2", "conv3"])
(second,) = deconvnet.gallery(net, top, "conv2", [151], torch.cat(batches))
second

# %%
(third,) = deconvnet.gallery(net, top, "conv3", [288], torch.cat(batches))
third

# %% [markdown]
# Left, nine projections: what in each patch made the unit fire. Right, the nine patches, those of conv3:288 the same
# as yours above. Mid-grey on the left is zero: these pixels had no part in it. Mid-grey on the right lies outside the
# photograph.
#
# conv3:288 answers to arches: the rim of a helmet, of a coin, of a wheel. It is the rim that is drawn, and most of
# what lies around it is grey. In the last row there is hardly an arch to see, and the activations above show that the
# unit fires there less than half as strongly. With more photographs these three would give way to better ones.
#
# **You can now** trace a unit to its pixels, cut out its patches, find its favourites, and read a projection. How a
# projection finds its way through a pooling layer, which throws three quarters of its input away, is notebook 2.
