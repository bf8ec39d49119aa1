# %% [markdown]
# # 2 · What is a switch?
#
# A pooling layer keeps the largest of a few neighbouring values and throws the others away. To come back down through
# it, one has to know *where* each of these values stood. The note of where it stood is its **switch**.
#
# You write pooling with switches, the way back, and the same for windows that overlap, where something surprising
# happens. Everything is tried on arrays small enough to be worked by hand, and then on a photograph. Guess before you
# run a cell.

# %%
import numpy as np
import torch
import torch.nn.functional as F

import deconvnet
from deconvnet import colours
from deconvnet.course import pictures
from deconvnet.course import switches as check

net = deconvnet.load_model("zfnet", weights="demo")
photographs = deconvnet.open_images("builtin:photographs", net.preprocess)
number = photographs.files.index("camera@0.44+000+000")
tape = deconvnet.record(net, photographs[number][0][None])           # runs the network on one photograph
before = tape.activations("conv1")[0, 27]                            # (110, 110): the map of unit 27 of layer 1
after = tape.activations("pool1")[0, 27]                             # (55, 55): the same map, pooled
pictures.row([photographs.image(number), before, after], ["the photograph", "conv1:27, 110×110", "after pool1, 55×55"],
             caption="A unit that likes upright edges, before and after pooling: black is zero, white the strongest.\n"
                     "The tripod and the tower are still there, but each cell stands for more pixels.")

# %% [markdown]
# ## 1 · Pool by hand
#
# Take a map of 4×4 and windows of 2×2 that lie side by side (kernel 2, stride 2). Before you look at the next
# picture: what are the four largest values, and in which cell does each stand?

# %%
x = np.array([[3, 9, 1, 2],
              [5, 4, 0, 7],
              [6, 12, 15, 10],
              [11, 8, 13, 14]])
numbering = np.arange(16).reshape(4, 4)
pictures.tables([x, numbering, [[9, 7], [12, 15]], [[1, 7], [9, 10]]],
                ["the map", "its cells, counted", "pooled", "switches"],
                marks=[[(0, 1), (1, 3), (2, 1), (2, 2)], [(0, 1), (1, 3), (2, 1), (2, 2)]],
                caption="Framed: the largest value of each window. Its switch is the number of its cell, counted row "
                        "by row from 0:\ncell (y, x) of a map that is W wide has the number y·W + x.")

# %% [markdown]
# ### Exercise 1
# Write it. A window has `kernel`×`kernel` cells, and the next one begins `stride` cells further on. Windows that do
# not fit on the map are left out. If two values of a window are equally large, the first of them (row by row) counts.

# %% tags=["exercise"]
def pool(x, kernel, stride):
    """The largest value of each window, and its switch: two arrays (h, w), made from an array (H, W)."""
    # solution: argmax of the window counts cells of the window; turn that into (y, x) on the map, and that into y·W + x
    height, width = ((size - kernel) // stride + 1 for size in x.shape)
    pooled, switches = np.zeros((height, width), x.dtype), np.zeros((height, width), int)
    for i in range(height):
        for j in range(width):
            window = x[i * stride:i * stride + kernel, j * stride:j * stride + kernel]
            row, column = divmod(int(window.argmax()), kernel)
            pooled[i, j] = window.max()
            switches[i, j] = (i * stride + row) * x.shape[1] + j * stride + column
    return pooled, switches
    # end of solution


# %% tags=["check"]
check.pool(pool)

# %% [markdown]
# ## 2 · Unpool by hand
#
# The way back takes four values and puts each where its switch says. The other twelve cells get zero: nobody knows
# any more what stood there.

# %%
signal = np.array([[1, 2], [3, 4]])
pictures.tables([signal, [[1, 7], [9, 10]], [[0, 1, 0, 0], [0, 0, 0, 2], [0, 3, 4, 0], [0, 0, 0, 0]]],
                ["signal", "switches", "unpooled"],
                caption="The signal is not the pooled map itself: it is whatever comes down from the layers above. "
                        "Here it is 1, 2, 3, 4.")

# %% [markdown]
# ### Exercise 2
# Write it for windows that lie side by side, so that no two switches are equal.

# %% tags=["exercise"]
def unpool(signal, switches, size):
    """The signal (h, w) on a map of ``size`` (H, W): each value at its switch, zero elsewhere."""
    # solution: divmod(switch, W) is the (y, x) of the cell
    out = np.zeros(size)
    for value, switch in zip(signal.flat, switches.flat, strict=True):
        y, x = divmod(int(switch), size[1])
        out[y, x] = value
    return out
    # end of solution


# %% tags=["check"]
check.unpool(unpool)

# %% [markdown]
# **Question.** Why must the size of the map be given? Could one not compute it from the size of the signal, the
# kernel and the stride?
# <details><summary>Answer</summary>
#
# Several maps give the same pooled size: with windows of 2×2 side by side, a map of 4×4 and one of 5×5 both give 2×2.
# And a switch is a number that is counted row by row, so it means another cell on a map of another width. With the
# wrong width nothing fails, but the picture is sheared. So the size is remembered on the way up.
# </details>
#
# ## 3 · Windows that overlap
#
# The pooling of ZFNet and AlexNet has windows of **3×3, but a stride of 2**: neighbours share a row or a column of
# cells. So two windows can have the *same* maximum. Here is the extreme case, one peak that four windows share.

# %%
peak = np.arange(25).reshape(5, 5) % 7
peak[2, 2] = 20
pooled, switches = (a[0].numpy() for a in F.max_pool2d(torch.tensor(peak[None]).float(), 3, 2, return_indices=True))
pictures.tables([peak, pooled, switches, signal], ["the map", "pooled, 3×3/2", "switches", "a signal"],
                marks=[[(2, 2)]],
                caption="3×3/2: windows of 3×3 with stride 2. Each holds the cell in the middle, so all four switches "
                        "are 12.")

# %% [markdown]
# **Question.** The signal 1, 2, 3, 4 comes down. All four values go to cell 12. What should arrive there: the last
# (4), the largest (4), the mean (2.5), or the sum (10)? Decide, and give a reason, before you go on.
# <details><summary>Answer</summary>
#
# The sum, 10. The paper does not say, and programs differ: PyTorch's own `max_unpool2d` writes one value over the
# other, and which one remains is not promised. The reason for the sum follows in section 4.
# </details>

# %%
written_over = F.max_unpool2d(torch.tensor(signal[None]).float(), torch.tensor(switches[None]), 3, 2)[0]
summed = np.zeros((5, 5))
summed[2, 2] = signal.sum()
pictures.tables([signal, written_over, summed], ["the signal", "written over (max_unpool2d)", "summed"],
                caption="Three of the four values are lost where they are written over each other.")

# %% [markdown]
# ### Exercise 3
# Write unpooling again, so that values that meet are summed.

# %% tags=["exercise"]
def unpool_summed(signal, switches, size):
    """The signal (h, w) on a map of ``size`` (H, W): each value at its switch, values that meet added up."""
    # solution: the same loop with += in place of =; beware: out[indices] += values in one line adds only one of them
    out = np.zeros(size)
    for value, switch in zip(signal.flat, switches.flat, strict=True):
        y, x = divmod(int(switch), size[1])
        out[y, x] += value
    return out
    # end of solution


# %% tags=["check"]
check.unpool_summed(unpool_summed)

# %% [markdown]
# ## 4 · Why the sum
#
# Hold the switches fixed. Then pooling only *picks* cells, and picking is linear: it is a matrix **A** of zeros and
# ones, with one row for each pooled value and one column for each cell of the map. Row *i* has its 1 in the column
# that its switch names.
#
# ### Exercise 4
# Write down this matrix.

# %% tags=["exercise"]
def picking_matrix(switches, size):
    """The matrix (h·w, H·W) of zeros and ones with ``A @ x.ravel()`` = the pooled values of a map x of ``size``."""
    # solution: row number i, the i-th switch row by row, has a 1 in column switches.flat[i]
    matrix = np.zeros((switches.size, size[0] * size[1]))
    matrix[np.arange(switches.size), switches.ravel()] = 1
    return matrix
    # end of solution


# %% tags=["check"]
check.picking_matrix(picking_matrix)

# %%
A = picking_matrix(np.array([[1, 7], [9, 10]]), (4, 4))
shared_A = picking_matrix(np.array([[4, 7], [4, 14]]), (4, 4))
pictures.tables([A, shared_A], ["side by side: switches 1, 7, 9, 10", "overlapping: switches 4, 7, 4, 14"], cell=0.3,
                marks=[None, [(0, 4), (2, 4)]],
                caption="Each row picks one cell of a 4×4 map. Where two windows share a maximum, two rows pick the "
                        "same column.")

# %% [markdown]
# A filter layer is a matrix too, and its way down in a deconvnet is the *transposed* matrix: the same weights, walked
# the other way. For pooling the same idea gives **Aᵀ**. Its column *i* puts value *i* into the cell that row *i*
# picked, and where two columns put something into the same cell, a matrix product **adds**. So the sum is what
# transposing means.
#
# There is a test for being the transpose that needs no matrix: for all maps *x* and all signals *y*
#
# $$\langle A x, y \rangle = \langle x, A^{\mathsf T} y \rangle$$
#
# where ⟨*a*, *b*⟩ multiplies *a* and *b* value by value and adds up. In words: weighing the pooled map with a signal is
# the same as weighing the map with the unpooled signal.

# %%
generator = np.random.default_rng(0)
for _ in range(3):
    a_map, a_signal = generator.normal(size=(5, 5)), generator.normal(size=(2, 2))
    up = (a_map.ravel()[switches] * a_signal).sum()                  # pooled with the switches of the peak, weighed
    down = (a_map * unpool_summed(a_signal, switches, (5, 5))).sum()
    lost = (a_map * unpool(a_signal, switches, (5, 5))).sum()
    print(f"⟨Ax, y⟩ = {up:7.4f}    ⟨x, summed⟩ = {down:7.4f}    ⟨x, written over⟩ = {lost:7.4f}")

# %% [markdown]
# Only the sum passes. And PyTorch's gradient of max-pooling, which must be the transpose because that is what a
# gradient is, sums too. So the one PyTorch function for pooling *down* contradicts the other.

# %%
leaf = torch.tensor(peak[None]).float().requires_grad_()
(gradient,) = torch.autograd.grad(F.max_pool2d(leaf, 3, 2), leaf, torch.tensor(signal[None]).float())
pictures.tables([gradient[0], summed, written_over], ["autograd", "summed", "max_unpool2d"],
                caption="The gradient of max-pooling, given the signal 1, 2, 3, 4 from above, is the sum.")

# %% [markdown]
# ## 5 · In a real network
#
# Is that a rare case? The tape keeps the switches of every pooling layer. Guess first: of the pooled values of ZFNet
# in this photograph, how many share their switch with a neighbour: 1 in 100, 1 in 10, 1 in 3?
#
# ### Exercise 5
# Count them.

# %% tags=["exercise"]
def share_of_shared(switches):
    """The share of the values, 0 … 1, whose switch at least one other value of the map (h, w) has too."""
    # solution: np.unique(switches, return_counts=True) tells how often each switch occurs; add up those above 1
    _, counts = np.unique(switches, return_counts=True)
    return counts[counts > 1].sum() / switches.size
    # end of solution


# %% tags=["check"]
check.share_of_shared(share_of_shared)

# %%
pools = {call.module: call for call in tape.calls if call.switches is not None}
for name, call in pools.items():
    found = np.mean([share_of_shared(one.numpy()) for one in call.switches[0]])
    big, small = (tuple(maps.shape[2:]) for maps in (call.given[0], call.switches))
    print(f"{name}: {big} → {small}, {found:.0%} of the values share their switch")

# %% [markdown]
# **Question.** `pool1` makes 55×55 from 110×110. But windows of 3 with stride 2 fit only (110 − 3)/2 + 1 = 54.5
# times. Where does the 55th come from, and what does it look at?
# <details><summary>Answer</summary>
#
# ZFNet rounds up (`ceil_mode=True`), since the paper prints 55. The last window reaches one cell over the border of
# the map and looks only at the two rows, or columns, that are there. So at the border a window has fewer cells, and a
# switch never points outside. With rounding down the map would be 54 wide, and all layers above would have other
# sizes than the paper's.
# </details>
#
# **Question.** In a dark even part of the photograph all nine values of a window are zero, since the ReLU has cut
# them off. Where does its switch point? And what comes down there?
# <details><summary>Answer</summary>
#
# To the first cell of the window, since all are equally large. That place means nothing. If the layer above sends
# something down through such a window, it arrives at this arbitrary place. Where the value was zero, the unit had no
# part in what made the layer above fire, but the deconvnet does not ask for that; notebook 3 looks at the rule that
# does.
# </details>
#
# Now the map from the beginning: pooled, and brought back with and without switches.

# %%
def crop(a_map):
    return a_map[40:104, 40:104]


call = pools["pool1"]
switches = call.switches[0, 27][None].long()  # the tape keeps them in as few bytes as they need
by_switch = F.max_unpool2d(after[None], switches, 3, 2, output_size=before.shape)[0]
to_center = torch.zeros_like(before)
to_center[1::2, 1::2] = after
pictures.row([crop(before), after[20:52, 20:52], crop(by_switch), crop(to_center)],
             ["the map (a part)", "pooled", "back, by the switches", "back, to the centres"],
             caption="By the switches the lines of the tripod come back thin and in their place, with gaps: only\n"
                     "the largest value of each window is left. Without them each goes to the middle of its window,\n"
                     "and the lines stay as thick as the pooled ones. (Each value is drawn once here, also where\n"
                     "windows share it.)")

# %% [markdown]
# And this is what switches do for a projection: one activation of layer 3, brought down to pixels through two
# poolings, by the switches and without them (`unpool="center"`).

# %%
maps = tape.activations("conv3")[0]                                  # (384, 13, 13)
units = [307, 19, 44]
places = [(unit, *divmod(int(maps[unit].argmax()), 13)) for unit in units]
fields = deconvnet.receptive_field(net, "conv3")
found = [(0, *place) for place in places]
with_switches = deconvnet.project(tape, "conv3", found)
without = deconvnet.project(tape, "conv3", found, unpool="center")
pictures.row([colours.normalise(p.pixels[n].numpy()) for n in range(3) for p in (with_switches, without)],
             [f"conv3:{unit}\n{how}" for unit in units for how in ("by the switches", "to the centres")], height=1.7,
             caption="Three activations of layer 3 in pixels. Mid-grey is zero; each picture is scaled by itself.")

# %%
pictures.row([photographs.image(number)], ["where they look"], height=3,
             boxes=[[fields.box(y, x) for _, y, x in places]],
             caption="The fields (75×75) of the three activations.")

# %% [markdown]
# By the switches the projections show lines of *this* photograph: the outline of a head and of shoulders. Without
# them they reach less far, since a centre lies one cell inside its window, and have a grey frame. They show a
# texture, and it is the same, up to its scale, wherever the unit fires. Nothing of the photograph is left:

# %%
two = [(0, 307, 3, 4), (0, 307, 9, 8)]                               # two other places of the map of conv3:307
for how in ("switches", "center"):
    one, other = deconvnet.project(tape, "conv3", two, unpool=how).pixels
    print(f"{how:8}: correlation of the two projections {np.corrcoef(one.flatten(), other.flatten())[0, 1]:.4f}")

# %% [markdown]
# **Question.** Is that only an advantage? Which part of such a picture comes from the unit's filters, and which from
# the photograph?
# <details><summary>Answer</summary>
#
# The switches are taken from the photograph, so a projection shows a part of the photograph: the places at which
# something stood out. It does not show what the unit would like *without* this photograph. That is why the paper
# shows nine projections of each unit, from nine photographs: what they have in common is the unit's. Notebook 7 takes
# the switches of another photograph, and random filters, and measures how much of a picture each of them makes.
# </details>
#
# **You can now** pool with switches, come back, say why values that meet are added, and test whether two operations
# are each other's transpose. In notebook 3 this is one of the three parts from which you build a deconvnet.
