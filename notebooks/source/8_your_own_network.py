# %% [markdown]
# # 8 · Your own network
#
# Everything so far was ZFNet and AlexNet. But nothing in `deconvnet` knows them: a forward pass of *any* `nn.Module` is
# recorded call by call, and the tape is walked backwards. Here we take a network of torchvision as it is, then write
# and train one of our own in a few seconds, see what its units have learned, and find out what is refused and why.

# %%
import copy
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import deconvnet
from deconvnet.course import own_network as check
from deconvnet.course.own_network import SHAPES, shapes
from deconvnet.describe import describe, obstacles
from deconvnet.images import Preprocess
from deconvnet.render import layer_sheet

# %% [markdown]
# ## One of torchvision's
#
# `torchvision:NAME` is any of its networks. Without weights they are random, always the same ones; nothing is
# downloaded. What does a residual network have, and what do its units see?

# %%
resnet = deconvnet.load_model("torchvision:resnet18")
blocks = ["layer1", "layer2", "layer3", "layer4"]
print(f"{'layer':22} {'kind':12} units   map     field   every")
for layer in describe(resnet):
    if layer.kind == "Conv2d":
        size, field = (f"{h}×{w}" for h, w in (layer.size, layer.field.size))
        print(f"{layer.name:22} {layer.kind:12} {layer.units:5} {size:>7} {field:>9} {layer.field.stride[0]:5}")
print("\nwhat can be mirrored: " + ("everything" if not obstacles(resnet) else "not everything"))

# %% [markdown]
# Batch normalisation, additions, in-place ReLUs that one module plays twice: all of it has a rule. A whole block has an
# address too, that of its module (`layer2`, `layer2.0`). Let us lay the receptive fields of the middle unit of each
# stage on a photograph.

# %%
photographs = deconvnet.open_images("builtin:photographs-apart", resnet.preprocess)
figure, axes = plt.subplots(1, 4, figsize=(9.5, 2.7), layout="constrained")
for axis, layer in zip(axes, blocks, strict=True):
    field = deconvnet.receptive_field(resnet, layer)
    middle = {"layer1": 28, "layer2": 14, "layer3": 7, "layer4": 3}[layer]
    (y, x), (h, w) = field.box(middle, middle)
    axis.imshow(photographs.image(6))
    axis.add_patch(plt.Rectangle((x - 0.5, y - 0.5), w, h, fill=False, color="red", linewidth=2))
    axis.set(xlim=(-230, 450), ylim=(450, -230), xticks=[0, 224], yticks=[0, 224], title=f"{layer}: {h}×{w} pixels")
plt.show()

# %% [markdown]
# White is outside the image. From `layer3` on a field is about as large as the image or larger: what such a unit "sees"
# is everything, and its patch does not say *where*. Deep residual networks are made so; it is a reason to look at their
# lower blocks.
#
# Now scan and look at a gallery. A `Gallery` as the last line of a cell shows itself: reconstructions on the left, zero
# as mid-grey, patches on the right in the same order, the strongest first.

# %%
images = torch.stack([photographs[number][0] for number in range(0, len(photographs), 14)])   # (34, 3, 224, 224)
top = deconvnet.scan(resnet, images, layers=["layer1"])
unit = int(top["layer1"].maximum.argmax())
next(deconvnet.gallery(resnet, top, "layer1", [unit], images))

# %% [markdown]
# **Question.** This network has learned nothing: its weights are random. Why do the nine patches resemble each other
# all the same, and why are there structures of the patches in the reconstructions?
# <details><summary>Answer</summary>
#
# A random filter has a preference too, and the nine patches are those that meet it best; with so many places to choose
# from they will be alike, in contrast above all. And a picture is drawn by the switches and the filters of the lower
# layers, learned or not: that was the subject of notebook 7. Without a comparison with random weights, a gallery proves
# little.
#
# </details>
#
# **Question.** How does a signal come down through `x + block(x)`?
# <details><summary>Answer</summary>
#
# The sum is linear, and its transpose is a copy: each summand gets the whole signal. One copy goes down through the
# block, the other takes the short cut, and where the branches meet again, at the block's input, they are added.
#
# </details>
#
# ## One of your own: the data
#
# Dark shapes on light grounds, drawn as we need them. To a scan, data are any torch `Dataset` of `(image, label)`; if
# it has `files`, `classes` and `labels`, the result speaks of them by name, and a `preprocess` gives patches their true
# colours back.


# %%
class Drawn(torch.utils.data.Dataset):
    """Drawn shapes as a network takes them."""

    preprocess = Preprocess(size=48, resize=48, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    classes = SHAPES

    def __init__(self, count, seed):
        self.pixels, labels = shapes(count, seed)                           # (count, 48, 48, 3) uint8
        self.labels = labels.tolist()
        self.files = [f"{SHAPES[label]} {number}" for number, label in enumerate(self.labels)]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.preprocess.tensor(Image.fromarray(self.pixels[index])), self.labels[index]


training, held_out = Drawn(1200, seed=0), Drawn(400, seed=1)
figure, axes = plt.subplots(2, 8, figsize=(9, 2.7), layout="constrained")
for number, axis in enumerate(axes.ravel()):
    axis.imshow(held_out.pixels[number])
    axis.set_title(held_out.files[number], fontsize=8)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## The network
#
# Written as one writes networks: functions rather than modules where that is shorter, `F.relu` reused, batch
# normalisation. None of it needs to be changed for the deconvnet.


# %%
class Small(nn.Module):
    """Three convolutions; where on the image something is does not matter to the scores."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 5, padding=2), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 48, 3, padding=1), nn.BatchNorm2d(48)
        self.scores = nn.Linear(48, len(SHAPES))

    def forward(self, x):                                                   # (N, 3, 48, 48)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)                # (N, 16, 24, 24)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)                # (N, 32, 12, 12)
        x = F.relu(self.bn3(self.conv3(x)))                                 # (N, 48, 12, 12)
        return self.scores(F.max_pool2d(x, 12).flatten(1))                  # (N, 4)


def train(net, epochs=3):
    """Train a network on the shapes, print the share of held-out shapes that it knows, and leave it in eval mode."""
    inputs, labels = (torch.stack([torch.as_tensor(item[part]) for item in training]) for part in (0, 1))
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    net.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs), generator=generator).split(50):
            optimiser.zero_grad()
            F.cross_entropy(net(inputs[batch]), labels[batch]).backward()
            optimiser.step()
    net.eval()
    with torch.no_grad():
        hits = [int(net(image[None]).argmax()) == label for image, label in held_out]
    print(f"{np.mean(hits):.1%} of the held-out shapes are recognised")
    return net


torch.manual_seed(0)
small = train(Small())
for layer in describe(small, (48, 48)):
    print(f"{layer.name:7} {layer.units:3} units, {layer.size[0]}×{layer.size[1]}, "
          f"field {layer.field.size[0]}×{layer.field.size[1]}")

# %% [markdown]
# Note `bn3`: an activation is the positive part of what the *named module* puts out. In this network ReLU comes after
# batch normalisation, so the activations that the next layer sees are those of `bn3`, and `conv3` would name something
# else.
#
# ## What has it learned?

# %%
top = deconvnet.scan(small, held_out, layers=["bn1", "bn2", "bn3"])
for layer in top:
    found = top[layer]
    print(f"{layer}: {len(found.fired)} units, {len(found.dead)} dead, {len(found.always)} fire for everything")
chosen = {}
for number, name in enumerate(SHAPES):
    selectivity = torch.where(top["bn3"].preferred == number, top["bn3"].selectivity, -1)
    chosen[name] = int(selectivity.argmax())
    print(f"the most selective for {name:8}: bn3:{chosen[name]}, selectivity {float(selectivity.max()):.2f}")

# %% [markdown]
# One unit for each class, on one sheet: reconstructions left, patches right, in the same order.

# %%
shown = list(deconvnet.gallery(small, top, "bn3", list(chosen.values()), held_out))
layer_sheet(shown, tile=60, columns=2, title="bn3: the most selective unit for " + ", ".join(chosen)).picture()

# %% [markdown]
# A unit sees 20×20 pixels, and a shape is 16 to 30 pixels wide. So none of them can have learned "a triangle": it
# learns something by which a triangle can be known, such as a sharp corner. Look at the patches and put it into words
# for each of the four. Where a patch is grey it lies outside the image.
#
# A single gallery again, as large as a notebook likes it:

# %%
shown[-1]

# %% [markdown]
# ## What is refused
#
# A projection that silently means something else is worse than none. So what has no rule is refused by name, before any
# picture is drawn. Here are small networks of many kinds, each two convolutions with something between them.

# %%
zoo = check.zoo()
print(list(zoo))

# %% [markdown]
# From `conv2` of which of them can nothing be projected? Decide first, then ask. (Think of what the rule would have to
# be, and of the difference between training and evaluation.)


# %% tags=["exercise"]
def refused():
    """The names, as a set, of those networks of the zoo from which nothing can be projected."""
    # solution: return {"…", "…"}, of the names that the cell above prints
    return {"sigmoid", "GELU", "batch norm, training", "group norm", "dropout, training", "gate"}
    # end of solution

# %% tags=["check"]
check.refused(refused)

# %%
for name in zoo:
    problem = obstacles(zoo[name], ["conv2"], (24, 24)).get("conv2", "can be projected")
    print(f"{name:26} {problem}")

# %% [markdown]
# * **Sigmoid, GELU.** The deconvnet rectifies the signal because the activations below are positive. These functions
#   squash or bend what passes; the paper has no rule for them. *Remedy*: look at the layers below, or train the network
#   with ReLU. To exchange it afterwards makes another network. **Leaky ReLU** is a ReLU but for its slope: the paper
#   passes the signal through the network's own rectifier, and so does this project, slope and all.
# * **Batch norm and dropout in training mode.** The result depends on the other images of the batch, or on chance: the
#   same activation would have another picture each time. *Remedy*: `net.eval()`.
# * **Group norm, attention, gates.** What multiplies the signal is computed from the image itself, so that there are no
#   fixed weights to be transposed. *Remedy*: look at the layers below.
#
# **Question.** The gradient exists for all of these. Why not take it where a rule is missing?
# <details><summary>Answer</summary>
#
# Then the picture would be a mixture of two methods, and its name would not say so. If you want the gradient ask for
# it: `method="gradient"` is a table of its own, and with it what is drawn is the derivative throughout. A table of your
# own works in the same way.
#
# </details>
#
# A scan needs no rule at all, since it only goes forward. It refuses the training mode, and nothing else: you can have
# the nine patches of every unit of any network.

# %%
gelu = zoo["GELU"]
tiles = torch.randn(20, 3, 24, 24, generator=torch.Generator().manual_seed(0))
print(deconvnet.scan(gelu, tiles, layers=["conv2"], progress=False))
try:
    deconvnet.project(deconvnet.record(gelu, tiles), "conv2", [(0, 0, 5, 5)])
except deconvnet.DeconvnetError as error:
    print("DeconvnetError:", error)

# %% [markdown]
# ## Batch normalisation, folded away
#
# In evaluation, batch normalisation is a scale and a shift for each channel: y = (x − mean) / √(variance + eps) ·
# weight + bias. After a convolution, one convolution can do both. This is what was done to the ZFNet that ships. Do it
# for one pair; the picture must not change.


# %% tags=["exercise"]
def fold(conv, norm):
    """One nn.Conv2d that gives what ``norm`` (nn.BatchNorm2d, evaluating) gives after ``conv`` (nn.Conv2d).

    Neither is changed. ``conv.bias`` may be None; so may ``norm.weight`` (then it is 1) and ``norm.bias`` (then 0).
    """
    # solution: scale each filter by weight / √(running_var + eps), and work out the bias by putting x = w·input + b in
    factor = (1 if norm.weight is None else norm.weight) / torch.sqrt(norm.running_var + norm.eps)     # (units,)
    bias = 0 if conv.bias is None else conv.bias
    folded = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
                       conv.groups)
    folded.weight.data = (conv.weight * factor[:, None, None, None]).detach()
    folded.bias.data = ((bias - norm.running_mean) * factor + (0 if norm.bias is None else norm.bias)).detach()
    return folded
    # end of solution

# %% tags=["check"]
check.fold(fold)

# %%


plain = copy.deepcopy(small)
for n in "123":
    setattr(plain, f"conv{n}", fold(getattr(small, f"conv{n}"), getattr(small, f"bn{n}")))
    setattr(plain, f"bn{n}", nn.Identity())
batch = torch.stack([held_out[int(image)][0] for image in top["bn3"].images[chosen["cross"]]])
where = [(n, chosen["cross"], int(y), int(x)) for n, (y, x) in enumerate(top["bn3"].positions[chosen["cross"]])]
before = deconvnet.project(deconvnet.record(small, batch), "bn3", where).pixels
after = deconvnet.project(deconvnet.record(plain, batch), "conv3", where).pixels
print(f"largest difference of a pixel {float((before - after).abs().max()):.1e}, largest pixel "
      f"{float(before.abs().max()):.1e}")

# %% [markdown]
# The shift has no part on the way down, as no bias has; the scale is in the filters now.
#
# ## Yours
#
# Write a network for the shapes, with the whole of your experience: other sizes, more layers, a residual connection,
# another pooling. It takes (N, 3, 48, 48) and gives four scores; its last convolution is called `last`, sees 20 to 48
# pixels and can be projected; it is returned in evaluation mode.


# %% tags=["exercise"]
def build():
    """A network of your own for the shapes, evaluating, with a convolution ``last`` that sees 20 to 48 pixels."""
    # solution: begin with a copy of Small, rename its conv3, change what you like, and end in return Mine().eval()
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 5, padding=2)
            self.conv2, self.bn2 = nn.Conv2d(16, 32, 5, padding=2, bias=False), nn.BatchNorm2d(32)
            self.last, self.bn3 = nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
            self.scores = nn.Linear(32, len(SHAPES))

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.conv1(x)), 3, 2, ceil_mode=True)
            x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 3, 2, ceil_mode=True)
            x = F.relu(x + self.bn3(self.last(x)))
            return self.scores(F.max_pool2d(x, 12).flatten(1))

    return Mine().eval()
    # end of solution

# %% tags=["check"]
check.network(build)

# %%
torch.manual_seed(0)
mine = train(build())
found = deconvnet.scan(mine, held_out, layers=["last"])
best = found["last"].selectivity.argsort(descending=True)[:6].tolist()
print(found, "dead:", found["last"].dead.tolist())
layer_sheet(list(deconvnet.gallery(mine, found, "last", best, held_out)), tile=56, columns=2,
            title="last: six units that prefer one class").picture()

# %% [markdown]
# ## From the command line
#
# The same commands that draw the paper's figures take a network of yours: `FILE.py:FUNCTION` or
# `package.module:function`, where the function takes nothing and returns the network. What it needs to know about
# images it brings along as `net.preprocess`. Weights are a state dict (`.pt`), which is read without running code, or
# `.safetensors`.

# %%
CODE = '''
from torch import nn
from deconvnet.images import Preprocess

def build():
    net = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.Sigmoid())
    net.preprocess = Preprocess(size=48, resize=48, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return net
'''
with TemporaryDirectory() as folder:
    file = Path(folder, "mine.py")
    file.write_text(CODE, encoding="utf-8")
    net = deconvnet.load_model(f"{file}:build")
    torch.save(net.state_dict(), Path(folder, "mine.pt"))
    again = deconvnet.load_model(f"{file}:build", weights=Path(folder, "mine.pt"))
print(again.preprocess)
for layer in describe(again, (48, 48)):
    print(f"{layer.name} {layer.kind:10} {layer.obstacle or 'can be projected'}")

# %% [markdown]
# In a terminal, with photographs of your own in folders by class:
#
#     deconvnet describe mine.py:build --weights mine.pt
#     deconvnet scan --model mine.py:build --weights mine.pt --images PHOTOGRAPHS --out mine.safetensors
#     deconvnet gallery mine.safetensors --out sheets
#
# **Question.** The last layer of this network is a sigmoid, and it is refused. Is the network lost to the deconvnet?
# <details><summary>Answer</summary>
#
# No. Only what lies *above* the sigmoid is lost. Its convolution (layer 3) lies below, and `deconvnet scan` and
# `gallery` take it; without `--layers` the scan takes all convolutions, and the gallery leaves out, by name and with
# the reason, what cannot be projected.
#
# </details>
