"""What all checks share: a case, and how near an answer is."""

import numpy as np
import pytest
import torch

from deconvnet.course import Wrong, case, close, right


def test_what_a_student_raises_is_told_with_its_line():
    def mine(x):
        return x[3]
    with pytest.raises(Wrong, match=r"on three: your function raised IndexError: .*line \d+ .*return x\[3\]") as e:
        case("on three", mine, [0, 1, 2])
    assert isinstance(e.value.__cause__, IndexError)
    assert e.value._render_traceback_() == [f"Not yet: {e.value}"]


def test_what_is_not_written_yet_passes():
    def mine():
        raise NotImplementedError("hint")
    with pytest.raises(NotImplementedError, match="hint") as e:
        case("any", mine)
    assert e.value._render_traceback_() == ["Your turn: hint"]


def test_a_wrong_call_is_told_without_a_line():
    with pytest.raises(Wrong, match="takes 0 positional arguments but 1 was given"):
        case("any", lambda: 0, 1)


def test_an_argument_that_is_changed_is_a_copy():
    x = torch.ones(2)
    assert case("any", lambda x: x.zero_(), x).sum() == 0 and x.sum() == 2


@pytest.mark.parametrize("same", [(1, 1.0), ((1, (2)), [1, 2]), (torch.ones(2, 2), np.ones((2, 2))), (0, 0),
                                  (1 + 1e-7, 1), (torch.ones(1, requires_grad=True), [1])])
def test_what_is_the_same_is_accepted(same):
    close("any", *same)


@pytest.mark.parametrize(("given", "expected", "words"), [
    (None, 1, "gave None. Does it end in return"), ("a", 1, "'a' came, which is not numbers"),
    ([1, 2], [1, 2, 3], r"shape \(2,\) came; expected was \(3,\)"), (1, 2, r"this came: 1.*\nexpected was: 2"),
    (np.zeros((9, 9)), np.eye(9), r"11% of the values differ, most at \(0, 0\): 0 came; expected was 1"),
    (np.full((9, 9), np.nan), np.eye(9), "NaN or infinity came"), (1e-9, 0, "this came"),
    (lambda: 0, 1, "not numbers")])
def test_what_is_not_is_told(given, expected, words):
    with pytest.raises(Wrong, match=f"^the case: .*{words}"):
        close("the case", given, expected)


def test_the_likely_cause_is_named_where_it_fits():
    mistakes = {"padding was forgotten": 3, "stride was forgotten": 4}
    with pytest.raises(Wrong, match="Likely cause: stride was forgotten"):
        close("any", 4, 5, mistakes)
    with pytest.raises(Wrong) as e:
        close("any", 6, 5, mistakes)
    assert "Likely" not in str(e.value)


def test_right_is_one_line(capsys):
    right("it is the transpose.")
    assert capsys.readouterr().out == "Right: it is the transpose.\n"
