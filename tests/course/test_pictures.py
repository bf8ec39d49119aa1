"""Pictures side by side and tables of numbers, as the notebooks draw them."""

import numpy as np
import torch

from deconvnet.course import pictures


def test_pictures_stand_side_by_side_with_their_boxes():
    white = np.full((50, 100, 3), 255, np.uint8)
    one = pictures.row([white, torch.zeros(50, 50)], ["a", "b"], height=1, caption="two")
    boxed = pictures.row([white, torch.zeros(50, 50)], ["a", "b"], height=1, caption="two",
                         boxes=[[((5, 5), (20, 20)), ((-9, -9), (300, 300))], None])
    assert one.size == boxed.size and one.width > 300
    red = (np.asarray(boxed.convert("RGB")) == (255, 0, 0)).all(-1)
    assert red.sum() > 100 and not (np.asarray(one.convert("RGB")) == (255, 0, 0)).all(-1).any()


def test_tables_show_every_cell_and_leave_what_is_not_a_number_grey():
    table = np.array([[1, -2], [np.nan, 0]])
    shown = np.asarray(pictures.tables([table, np.arange(3)], ["x", "y"], marks=[[(0, 0)]]).convert("RGB"))
    assert (shown == (128, 128, 128)).all(-1).sum() > 500 and (shown == (255, 0, 0)).all(-1).sum() > 50
    assert pictures.tables([np.zeros((2, 2))]).width == pictures.tables([torch.ones(2, 2)]).width


def test_a_long_caption_has_room():
    assert pictures.tables([np.zeros((2, 2))], caption="a caption " * 9).width > 600


def test_minus_zero_is_zero():
    one, other = (np.asarray(pictures.tables([np.array([[zero, 1]])])) for zero in (0.0, -0.0))
    assert (one == other).all()
