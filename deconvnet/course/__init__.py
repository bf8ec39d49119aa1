"""Checks for the exercises of the notebooks, one module for each notebook, and what they share.

A check asks a student's function about several cases, prints ``Right: …``, or raises ``Wrong`` and says what is wrong.
"""

import copy
import linecache
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

SHOWN = 64  # an array with no more values is printed whole


class Wrong(AssertionError):
    """An answer to an exercise that is not right yet; its message says what came, what was expected, and why."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook prints for it: the message alone, since the lines of the check are of no use."""
        return [f"Not yet: {self}"]


def case(words: str, function: Callable, *arguments: Any, **keywords: Any) -> Any:
    """What the student's function gives in this case, from copies of the arguments.

    What it raises becomes Wrong, with its line. NotImplementedError passes, since nothing has been written yet; a
    notebook prints its hint alone, and not the lines of the check, which would give the answer away.
    """
    try:
        return function(*copy.deepcopy(arguments), **copy.deepcopy(keywords))
    except NotImplementedError as error:
        hint = f"Your turn: {error}"
        vars(error).update(_render_traceback_=lambda: [hint])
        raise
    except Exception as error:
        problem = f"{words}: your function raised {type(error).__name__}: {error}{_line(function, error)}"
        raise Wrong(problem) from error


def close(words: str, given: Any, expected: Any, mistakes: Mapping[str, Any] | None = None,
          tolerance: float = 1e-5) -> None:
    """Raises Wrong unless ``given`` is ``expected``, relatively to its largest value: None, shape, then values.

    Args:
        words: the case, as the student knows it; the message begins with it.
        given, expected: numbers, nested tuples of numbers, arrays or tensors.
        mistakes: likely causes, each with what it would have given here; the one that fits is named.
        tolerance: of the difference, relatively to the largest expected size.
    """
    if given is None:
        raise Wrong(f"{words}: your function gave None. Does it end in return?")
    wanted, got = _array(expected), _array(given)
    if got is None or wanted is None:
        raise Wrong(f"{words}: {given!r} came, which is not numbers; expected was{_text(expected)}")
    if _equal(got, wanted, tolerance):
        return
    likely = [f" Likely cause: {cause}." for cause, gives in (mistakes or {}).items()
              if _equal(got, _array(gives), tolerance)]
    raise Wrong(f"{words}: {_difference(got, wanted)}{likely[0] if likely else ''}")


def right(words: str) -> None:
    """Tells the student that every case was answered rightly, and what that shows."""
    print(f"Right: {words}")


def _array(value: Any) -> np.ndarray | None:
    """The value as an array of floats; None where it is not numbers."""
    try:
        return np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _equal(one: np.ndarray, other: np.ndarray | None, tolerance: float) -> bool:
    if other is None or one.shape != other.shape:
        return False
    return bool(np.allclose(one, other, rtol=0, atol=tolerance * max(np.abs(other).max(initial=0), 1e-12)))


def _difference(given: np.ndarray, expected: np.ndarray) -> str:
    if given.shape != expected.shape:
        return f"the shape {given.shape} came; expected was {expected.shape}."
    if given.size <= SHOWN:
        return f"this came:{_text(given)}\nexpected was:{_text(expected)}\n"
    if not np.isfinite(given).all():
        return "NaN or infinity came."
    apart = np.abs(given - expected)
    where = tuple(map(int, np.unravel_index(apart.argmax(), apart.shape)))
    share = (apart > 1e-5 * np.abs(expected).max()).mean()
    return (f"{share:.0%} of the values differ, most at {where}: {given[where]:.6g} came; expected was "
            f"{expected[where]:.6g}.")


def _text(value: Any) -> str:
    """An array on lines of its own, a number on the same."""
    text = np.array2string(np.asarray(value), precision=4, suppress_small=True, separator=", ")
    return f"\n{text}" if "\n" in text else f" {text}"


def _line(function: Callable, error: Exception) -> str:
    """The last line of the student's own cell that the error came through."""
    trace, last = error.__traceback__, None
    own = getattr(getattr(function, "__code__", None), "co_filename", None)
    while trace:
        if trace.tb_frame.f_code.co_filename == own:
            last = trace
        trace = trace.tb_next
    if last is None or own is None:
        return ""
    code = linecache.getline(own, last.tb_lineno).strip()
    return f" (line {last.tb_lineno} of the cell{f': {code}' if code else ''})"
