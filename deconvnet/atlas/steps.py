"""One sentence for each step of the way down; why it is done stands once, among the words of the overview."""

from typing import Any

_PASSED = {
    "contrast norm. passed through": "Contrast normalisation is passed through.",
    "times batch norm's scale": "Batch normalisation leaves its scale.",
    "split into the parts": "Joined maps are taken apart.",
    "branches added": "What comes down two branches is added.",
}


def sentence(step: dict[str, Any], above: dict[str, Any], last: bool) -> str:
    """What happened in a step, after what came through unchanged before it."""
    how = step["how"].removesuffix(", stride 1")
    name = (f" {step['module']}" if step["module"] else "") + (f" ({how})" if how else "")  # a function has no name
    joined = step["follows"] and "split into the parts" not in step["passed"]
    maps = f"{above['of']} maps become {step['of']}" if joined else f"{step['of']} maps come of it"
    told = {
        "seed": f"One activation of{name} keeps its value; all else in the layer is zero.",
        "unpool": f"Unpool{name}: each value goes to its switch, those that meet are summed, the rest is zero.",
        "rectify": f"Rectify{name}: what is negative " + ("shrinks." if how else "becomes zero."),
        "filter": f"Filter{name} with the transposed filters: {maps}.",
        "spread": f"Spread{name}: each value is shared evenly over its window.",
        "pass": "On to pixels: what lies between is passed through.",
    }[step["step"]]
    notes = [_PASSED[passed] for passed in step["passed"] if passed in _PASSED]
    branch = [] if step["follows"] else ["On another branch."]
    ending = ["These are pixels, and stay signed."] if last else []
    return " ".join([*notes, *branch, told, *ending])
