"""``python -m deconvnet`` is the command line, and so is what ``torchrun -m deconvnet`` starts."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
