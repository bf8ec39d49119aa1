# %% [markdown]
# # 6 · Is it really looking at that?
#
# A projection shows structure to which a unit answered. Whether the network *needs* it is another question, and the
# paper asks it three times by changing the picture: by covering parts of it, by moving it, and by covering the same
# part of like things.
#
# The network that ships knows 96 classes of Caltech-101, and the photographs are scikit-image's. Only few of its views
# are of a class that the network knows and takes them for. The cat is none: no class of cats was learned, and it is
# followed as the cougar's face that the network takes it for.

# %%
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Image

import deconvnet
from deconvnet.colours import normalise
from deconvnet.course import looking as check
from deconvnet.exhibit import png
from deconvnet.figures import correspondence as faces_of
from deconvnet.figures import invariance
from deconvnet.figures.covered import correlation, cover, grey, positions, ranks, squares
from deconvnet.figures.occlusion import DEFAULT, agreement, occlude, strongest
from deconvnet.figures.shown import choose
from deconvnet.tables import correspondence as table_1

# %%
net = deconvnet.load_model("zfnet", weights="demo")
photographs = deconvnet.open_images("builtin:photographs", net.preprocess)
shown, _ = choose(net, photographs, DEFAULT, DEFAULT, 3, 0)
with torch.no_grad():
    chances = net(torch.stack([one.input for one in shown])).softmax(1)

figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for place, one, chance in zip(axes, shown, chances, strict=True):
    place.imshow(one.pixels)
    place.set(xticks=[], yticks=[], title=f"{one.title}: probability {chance[one.target]:.2f}")

# %% [markdown]
# ## Exercise: occlusion
#
# A grey square goes over the image, and at each place the network is asked again. The paper's square has 50×50 pixels
# and moves 6 at a time, which is 30×30 places, 900 passes an image.

# %% tags=["exercise"]
def occlusion(predict, image, filling, square, stride):
    """What is predicted with the square at each place, (rows, columns).

    predict: a batch (n, 3, H, W) → (n,); image: (3, H, W); filling: (3, H, W), what an even grey is for the network.
    The square's top left corner goes to 0, stride, 2·stride … along both axes, as long as all of it lies on the image.
    """
    # solution: two loops over range(0, side − square + 1, stride); each time a clone of the image, the filling in it
    rows = []
    for y in range(0, image.shape[1] - square + 1, stride):
        batch = []
        for x in range(0, image.shape[2] - square + 1, stride):
            covered = image.clone()
            covered[:, y:y + square, x:x + square] = filling[:, y:y + square, x:x + square]
            batch.append(covered)
        rows.append(predict(torch.stack(batch)))
    return torch.stack(rows)
    # end of solution


# %% tags=["check"]
check.occlusion(occlusion)

# %% [markdown]
# **Question.** Why `filling`, and not zeros?
#
# <details><summary>Answer</summary>
#
# The network's input is the pixels less a mean, divided by a deviation. Mid-grey, 128, is near zero there but not zero,
# and not the same in the three colours; black would be far away. The library's `grey(net.preprocess)` gives the grey as
# the network takes it. No filling is neutral: a grey square has edges, and edges are what a network looks for.
#
# </details>
#
# The library does it for the strongest feature map of `conv5` and for the probabilities at once; every 24 pixels here,
# which is 8×8 places an image.

# %%
square, stride = 50, 24
boxes = squares(positions(224, square, stride), square)
looked = []
for one in shown:
    tape = deconvnet.record(net, one.input[None])
    own = strongest(tape, "conv5")
    seen = occlude(net, one.input, grey(net.preprocess), boxes, "conv5", own[0])
    pixels = deconvnet.project(tape, "conv5", [(0, *own)]).on_canvas()[0].numpy()
    looked.append((one, own, seen, pixels, agreement(tape, "conv5", own, seen, boxes)))

# %%
figure, axes = plt.subplots(3, 4, figsize=(10, 7.6), layout="constrained")
for line, (one, own, seen, pixels, _) in zip(axes, looked, strict=True):
    worst = boxes[int(seen.probabilities[:, :, one.target].argmin())]
    line[0].imshow(cover(one.pixels, worst))
    line[0].set_title(f"{one.title}, where the square\ncosts most probability", fontsize=9)
    line[1].imshow(normalise(pixels))
    line[1].set_title(f"projection of conv5:{own[0]}\n(zero is mid-grey)", fontsize=9)
    for place, values, words in ((line[2], seen.total, f"sum over conv5:{own[0]}\nwithout square: {seen.clean:.0f}"),
                                 (line[3], seen.probabilities[:, :, one.target], f"probability of\n{one.title}")):
        drawn = place.imshow(values, extent=(0, 224, 224, 0))
        figure.colorbar(drawn, ax=place, shrink=0.8)
        place.set_title(words, fontsize=9)
    for place in line:
        place.set(xticks=[], yticks=[])

# %% [markdown]
# Dark in the third and fourth column is where the square takes most: a cell is a place of the square, not a pixel.
#
# The projection says what the map's *strongest activation* rests on; the third column what the *whole map* rests on;
# the fourth what the *class* rests on. Do they agree? Rank correlations over the 64 places, from −1 to 1:

# %%
for one, _, seen, _, agree in looked:
    drop = (seen.clean - seen.total).ravel()
    needed = -seen.probabilities[:, :, one.target].ravel()
    both = correlation(ranks(drop), ranks(needed))
    print(f"{one.title:12} projection and map {agree['spearman']:5.2f}    whole map projected and map "
          f"{agree['spearman_map']:5.2f}    map and class {both:5.2f}")

# %% [markdown]
# **Question.** Where map and class disagree, which of the two pictures is wrong?
#
# <details><summary>Answer</summary>
#
# Neither. The strongest map is one of 256, and the class is made of all of them. The paper has such a case too: a map
# that answers to text, or to faces, in an image of a car wheel or a dog, is strong, and covering the text does not
# hurt the class. A strong answer is not a used answer.
#
# </details>
#
# ## Exercise: how far do features move?
#
# The image is moved, enlarged and turned, and the features of a layer are compared with those of the image as it is:
# the Euclidean distance, here divided by the norm of the original's features, so that layers can be compared.

# %% tags=["exercise"]
def relative_distance(plain, changed):
    """‖x̃ − x‖ / ‖x‖ for each changed image, (n,).

    plain: the features x of the image as it is, of any shape; changed: (n, …), those of n changed images.
    """
    # solution: flatten each image's features to a row, then torch.linalg.vector_norm(…, dim=1)
    apart = (changed - plain).flatten(1)
    return torch.linalg.vector_norm(apart, dim=1) / torch.linalg.vector_norm(plain)
    # end of solution


# %% tags=["check"]
check.relative_distance(relative_distance)

# %% [markdown]
# The library's sweep does it for two layers and the probability of the class. The left column shows some of the changed
# images; where the image does not reach they are mid-grey. Each image has the colour of its frame.

# %%
ranges = {"translation": np.linspace(-60, 60, 9), "scale": np.linspace(1, 1.8, 5), "rotation": np.linspace(0, 330, 12)}
layers = ("conv1", "fc7")
sweeps = [invariance.sweep(net, shown, kind, values, layers) for kind, values in ranges.items()]
Image(png(invariance.draw(sweeps, [one.title for one in shown], layers, relative=True), {}), width=1000)

# %%
print("relative distance, mean of the three images:   conv1   fc7")
for one, at, words in zip(sweeps, (5, 1, 1), ("15 pixels down", "1.2 times as large", "30 degrees"), strict=True):
    first, last = (float(values[:, at].mean()) for values in one.relative())
    print(f"{words:>45}  {first:6.2f}{last:6.2f}")

# %% [markdown]
# **Question.** The paper finds layer 1 to change strongly with small movements, and layer 7 little, nearly in
# proportion to them. What of it is seen here, and why is a move by 15 pixels already so much for `conv1`?
#
# <details><summary>Answer</summary>
#
# `conv1` is nearly at its plateau at once, in every row: its units see 7 pixels, so a move by 15 puts something else
# before each of them, and the distance of two unlike maps no longer grows. `fc7` changes less, and more gradually. The
# probability of the class moves with it, and not always down. The grey that comes in at the border is a change of its
# own, and the paper does not say what it filled with. Three images are an illustration.
#
# </details>
#
# ## Exercise: correspondence
#
# If a network knew what an eye is, covering it should do the same to its features in every face. For each image take ε
# = x − x̃, the features less those with the part covered, and only its sign: 1, −1, or 0 where nothing changes. Δ is
# how often the signs differ between two images, as a share of the features, on average over all pairs of images.

# %% tags=["exercise"]
def sign_change(changes, least):
    """Δ, a number from 0 to 1.

    changes: ε for each image, a list of (features,); a change of at most ``least`` counts as none.
    """
    # solution: signs with a 0 for small changes; itertools.combinations(signs, 2) gives each pair of images once
    signs = [(one > least).int() - (one < -least).int() for one in changes]
    shares = [(a != b).float().mean() for a, b in combinations(signs, 2)]
    return float(torch.stack(shares).mean())
    # end of solution


# %% tags=["check"]
check.sign_change(sign_change)

# %% [markdown]
# Five pictures with the same three parts covered, and for comparison random places of the same sizes.

# %%
faces = faces_of.open_faces(photographs, faces_of.DEFAULT)
places = faces_of.random_places(faces, 4, seed=0)
rows = [[face.pixels] + [cover(face.pixels, box) for box in [*face.boxes.values(), *own[:2]]]
        for face, own in zip(faces, places, strict=True)]
faces_of.draw(rows, ["original", *faces[0].boxes, "random", "random"]).picture()

# %%
found = table_1.measure(net, faces, places, ["conv5", "fc7"])
print("covered       conv5             fc7              paper: layer 5    layer 7")
for part, deltas in found.items():
    print(f"{part:12}", *[f"{delta!s:17}" for delta in deltas], *[f"{words:17}" for words in table_1.PAPER[part]])

# %% [markdown]
# The paper's claim is that eyes and nose change layer 5 more alike than random places do. Here is the same as a
# picture, one dot for each pair of images, and with it the pairs apart that are of one and of two faces.

# %%
same = [a.name[:7] == b.name[:7] for a, b in combinations(faces, 2)]             # both the cat, or both the woman
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for number, (place, layer) in enumerate(zip(axes, ("conv5", "fc7"), strict=True)):
    for column, deltas in enumerate(found.values()):
        values = np.array(deltas[number].values)
        alike = np.array(same * (len(values) // len(same)))
        for chosen, colour, side in ((alike, "#204080", -0.12), (~alike, "#c05020", 0.12)):
            place.plot(np.full(chosen.sum(), column + side), values[chosen], ".", color=colour, alpha=0.7,
                       label="two views of one face" if chosen is alike else "cat and woman")
    place.set_xticks(range(len(found)), list(found))
    place.set(title=layer, ylabel="Δ of a pair", ylim=(0, None))
handles, labels = axes[0].get_legend_handles_labels()
figure.legend(handles[:2], labels[:2], loc="outside lower center", ncols=2, fontsize=8)
for place in axes:
    place.grid(alpha=0.3)

# %% [markdown]
# **Question.** Do these numbers support the paper's claim?
#
# <details><summary>Answer</summary>
#
# No. `conv5` does not show what the paper's layer 5 shows, for its random places are not clearly above the parts. But
# neither do they speak against it: there are two faces, a cat's and a woman's, in five views, in `fc7` two views of
# one face are more alike than cat and woman whatever is covered, the boxes were put by hand, and the network learned
# no class of cats. The paper gives neither the size of its boxes nor the number of its random places. What the table
# shows is how one measures it. With photographs of your own, all of one kind of thing, `deconvnet table 1` makes it.
#
# </details>
#
# **Question.** A small Δ can have an uninteresting cause. Which?
#
# <details><summary>Answer</summary>
#
# Most features need not change at all: where ε is 0 in both images the signs agree. A part that hardly matters makes Δ
# small. So one looks at the share of zeros too, as in the next cell.
#
# </details>

# %%
keep = {"conv5": lambda maps: maps.flatten(1), "fc7": lambda maps: maps.flatten(1)}
for part in faces[0].boxes:
    shares = {layer: [] for layer in keep}
    for face in faces:
        signs = table_1.signs(net, face, [face.boxes[part]], list(keep))
        for layer in keep:
            shares[layer].append(float((signs[layer] == 0).mean()))
    print(f"{part:10} share of features that do not change:",
          ", ".join(f"{layer} {np.mean(some):.0%}" for layer, some in shares.items()))
