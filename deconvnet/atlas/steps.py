"""One sentence for each step of the way down, for a student who has it before the eyes."""

from typing import Any

_PASSED = {
    "contrast norm. passed through": "Contrast normalisation has no inverse here and is passed through.",
    "times batch norm's scale": "Batch normalisation is undone but for its scale, by which each map is multiplied.",
    "split into the parts": "Maps that were joined on the way up are taken apart again.",
    "branches added": "What comes down two branches is added.",
}


def sentence(step: dict[str, Any], above: dict[str, Any], last: bool) -> str:
    """What happened in a step, and what came through unchanged before it."""
    module, how = step["module"], f" ({step['how']})" if step["how"] else ""
    told = {
        "seed": f"We begin with one activation of {module}: its value stays, all else in the layer is set to zero.",
        "unpool": f"Unpool {module}{how}: each value goes back to the place of its maximum, which the switches kept, "
                  "and the rest is zero; where windows overlap and share a maximum, values are summed.",
        "rectify": f"Rectify {module}: what is negative becomes zero, so that what is rebuilt is again a feature map, "
                   "which has no negative values.",
        "filter": f"Filter {module}{how} transposed: each map is spread by its filters, turned by 180°, and "
                  f"{above['of']} maps become {step['of']}; no bias takes part.",
        "spread": f"Spread {module}{how}: average pooling is undone by sharing each value evenly over its window.",
    }[step["step"]]
    notes = [_PASSED[passed] for passed in step["passed"] if passed in _PASSED]
    if not step["follows"]:
        notes.append("This step lies on another branch.")
    ending = ["These are pixels: they stay signed, and zero is mid-grey."] if last else []
    return " ".join([*notes, told, *ending])
