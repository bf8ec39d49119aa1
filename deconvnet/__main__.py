"""``python -m deconvnet`` is the command line, and so is what ``torchrun -m deconvnet`` starts."""

import os
import signal

for number in (signal.SIGINT, signal.SIGTERM):  # while the command line is imported they end it, without a traceback
    if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, lambda number, _: os._exit(128 + number))

from .cli import program  # noqa: E402

if __name__ == "__main__":
    program()
