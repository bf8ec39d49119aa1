"""What each command of the command line does: its options, what it prints and what it writes.

The docstrings are the help. Nothing heavy is imported until a command runs, so that help answers at once.
"""

from collections.abc import Callable

from .learning import run_train
from .pages import run_atlas, run_serve
from .paper import run_compare, run_figure, run_table
from .scanning import run_demo, run_describe, run_gallery, run_scan

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": run_demo, "describe": run_describe, "scan": run_scan, "gallery": run_gallery, "train": run_train,
    "figure": run_figure, "table": run_table, "compare": run_compare, "atlas": run_atlas, "serve": run_serve}
