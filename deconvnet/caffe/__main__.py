"""``python -m deconvnet.caffe NET.prototxt NET.caffemodel OUT.yaml``."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import DeconvnetError, UsageError
from .convert import convert


def main(words: Sequence[str]) -> int:
    """Converts, prints what came of it, and gives the exit code."""
    try:
        if len(words) != 3:
            raise UsageError("python -m deconvnet.caffe NET.prototxt NET.caffemodel OUT.yaml")
        said = convert(*map(Path, words))
    except DeconvnetError as error:
        print(f"deconvnet: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    print(f"{words[2]} and its weights are written; {said}.")
    print(f"Now look at the first lines of {words[2]}, then: deconvnet describe {words[2]} --check IMAGES")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
