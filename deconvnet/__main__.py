"""``python -m deconvnet`` is the command line, and so is what ``torchrun -m deconvnet`` starts."""

from .cli import program

if __name__ == "__main__":
    program()
