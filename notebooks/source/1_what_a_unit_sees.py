# %% [markdown]
# # 1 · What does a unit see?

# %%
from deconvnet.course import sees as check


# %% tags=["exercise"]
def cells_below(first, count, kernel, stride, padding):
    """The first cell, and how many, that ``count`` neighbouring cells from ``first`` look at, one step down."""
    # solution: the first window begins at first·stride − padding; each further one begins stride cells later
    return first * stride - padding, (count - 1) * stride + kernel
    # end of solution


# %% tags=["check"]
check.cells_below(cells_below)
