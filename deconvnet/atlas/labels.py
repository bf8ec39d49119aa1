"""A teacher's words for units: a mapping of addresses to text, such as ``conv5:147: wheels``."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from ..errors import UsageError
from ..report import printable
from ..scanned import Scan

LONGEST = 200  # characters

Labels = dict[str, dict[int, str]]  # layer → unit → text


def check(said: Mapping[Any, Any], top: Scan, where: str) -> Labels:
    """The labels by layer and unit. UsageError, with all faults at once, for what is no unit of the scan or no text."""
    labels: Labels = {}
    faults = []
    for address, text in said.items():
        layer, _, number = str(address).rpartition(":")
        if layer not in top.layers or not (number.isascii() and number.isdigit()):
            near = get_close_matches(layer, top.layers, n=1)
            faults.append(f"{address}: no such unit; addresses are such as {(near or list(top.layers))[0]}:0")
        elif int(number) >= len(top.layers[layer].fired):
            faults.append(f"{address}: {layer} has {len(top.layers[layer].fired)} units")
        elif not isinstance(text, str | int | float) or not 0 < len(str(text).strip()) <= LONGEST:
            faults.append(f"{address}: a label is a text of 1 to {LONGEST} characters")
        else:
            labels.setdefault(layer, {})[int(number)] = printable(" ".join(str(text).split()))
    if faults:
        raise UsageError("\n".join([f"{where}: {len(faults)} of {len(said)} labels cannot be used",
                                    *(f"  {printable(fault)}" for fault in faults)]))
    return labels
