# %% [markdown]
# # Ten lines
#
# What one needs in a notebook, on one page. A network, images, the strongest activations of every unit:

# %%
import deconvnet

net = deconvnet.load_model("zfnet", weights="demo")  # or any nn.Module in eval mode
photographs = deconvnet.open_images("builtin:photographs-apart", net.preprocess)  # or a folder
top = deconvnet.scan(net, photographs, layers=["conv5"], shard=(0, 8))  # every eighth of 472; leave shard out for all
unit = int(top["conv5"].maximum.argmax())

# %% [markdown]
# A gallery shows itself: the nine reconstructions of the unit on the left (zero is mid-grey, one scale for the nine),
# the patches that caused them on the right, in the same order. Where a patch is evenly grey it lies outside its image.

# %%
next(deconvnet.gallery(net, top, "conv5", [unit], photographs))

# %% [markdown]
# One activation by hand: the strongest of the unit, recorded anew and projected down to pixels. `p.pixels` is signed,
# on the unit's receptive field, whose top left pixel is `p.origin`, (y, x).

# %%
image, (y, x) = top["conv5"].images[unit, 0], top["conv5"].positions[unit, 0]
tape = deconvnet.record(net, photographs[image][0][None])
p = deconvnet.project(tape, "conv5", [(0, unit, y, x)])
p.pixels.shape, p.origin, deconvnet.receptive_field(net, "conv5")

# %% [markdown]
# These were the ten. What else there is to ask:
#
# * `top["conv5"]`: `.values`, `.images`, `.positions` of the strongest activations; `.dead` and `.always`, the units
#   that never or always fire; `.fires`; `.preferred` and `.selectivity`, where the images have classes.
#   `top.save("top.safetensors")`, and later `deconvnet.read_scan("top.safetensors")`.
# * A gallery: `.values`, `.images`, `.positions`, `.files`, `.reconstructions`, `.patches`, `.origins`.
# * A projection: `p.pixels`, `p.origin`, `p.values`, and `p.on_canvas()`, the same in whole images.
# * `deconvnet.project(…, method="gradient")` or `"guided"`, `unpool="center"`, `seed="map"` for a whole feature map.
#
# The page of a whole layer, and a single projection as a picture:

# %%
from PIL import Image

from deconvnet.colours import normalise
from deconvnet.render import layer_sheet

strongest = top["conv5"].maximum.argsort(descending=True)[:4].tolist()
layer_sheet(list(deconvnet.gallery(net, top, "conv5", strongest, photographs)), columns=2).picture()

# %%
Image.fromarray(normalise(p.pixels[0].numpy())).resize((278, 278), Image.Resampling.NEAREST)
