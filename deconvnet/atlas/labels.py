"""A teacher's words for units: a mapping of addresses to text, such as ``conv5:147: wheels``."""

from collections.abc import Mapping
from difflib import get_close_matches
from re import fullmatch
from typing import Any

from ..errors import UsageError
from ..layout import printable
from ..scanned import Scan

LONGEST = 200  # characters
SCREEN = 20    # faults that are named; more would not fit on a screen

Labels = dict[str, dict[int, str]]  # layer → unit → text


def check(said: Mapping[str, Any], top: Scan, where: str) -> Labels:
    """The labels by layer and unit. UsageError, with all faults at once, for what is no unit of the scan or no text."""
    labels: Labels = {}
    faults = []
    for address, text in said.items():
        layer, _, number = address.rpartition(":")
        if fault := _fault(layer, number, text, top):
            faults.append(f"  {printable(address)[:60]}: {fault}")
        else:
            labels.setdefault(layer, {})[int(number)] = printable(" ".join(str(text).split()))
    if faults:
        more = [f"  … and {len(faults) - SCREEN} more"] if len(faults) > SCREEN else []
        raise UsageError("\n".join([f"{where}: {len(faults)} of {len(said)} labels cannot be used",
                                    *faults[:SCREEN], *more]))
    return labels


def _fault(layer: str, number: str, text: Any, top: Scan) -> str:
    """What is wrong with a label; empty where nothing is."""
    if layer not in top.layers or not fullmatch("0|[1-9][0-9]{0,8}", number):
        near = get_close_matches(layer[:LONGEST], top.layers, n=1)
        return f"no such unit; addresses are such as {(near or list(top.layers))[0]}:0"
    if int(number) >= len(top.layers[layer].fired):
        return f"{layer} has {len(top.layers[layer].fired)} units"
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        return f"a label is a text, in quotes where YAML would take it for something else; this is {text!r:.40}"
    if not 0 < len(str(text).strip()) <= LONGEST:
        return f"a label has 1 to {LONGEST} characters"
    return ""
