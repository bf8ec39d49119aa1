"""``python -m deconvnet.caffe NET.prototxt NET.caffemodel OUT.yaml``."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import DeconvnetError, UsageError
from .convert import convert

_USAGE = "python -m deconvnet.caffe NET.prototxt NET.caffemodel OUT.yaml"
_HELP = f"""{_USAGE}

Makes of Caffe's two files OUT.yaml, which lists the layers under Caffe's names and says how images are made, and
OUT.safetensors beside it, with the weights. Then: deconvnet describe OUT.yaml, deconvnet scan --model OUT.yaml, and so
on. Nothing is written unless OpenCV's own forward pass agrees to 1e-4, nor over files that are there already and
differ."""


def main(words: Sequence[str]) -> int:
    """Converts, prints what came of it, and gives the exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    if {"-h", "--help"} & set(words):
        print(_HELP)
        return 0
    try:
        if len(words) != 3:
            raise UsageError(_USAGE)
        said = convert(*map(Path, words))
    except DeconvnetError as error:
        print(f"deconvnet: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130
    print(f"{words[2]} and its weights are written; {said}.")
    print(f"Now look at the first lines of {words[2]}, then: deconvnet describe {words[2]} --check IMAGES")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
