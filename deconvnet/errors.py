"""The errors that a user is meant to read: what is wrong, in which file or key, and what to do."""


from numbers import Integral


class DeconvnetError(Exception):
    """Something that the user can mend. The command line prints it without a traceback and exits with 1."""


class UsageError(DeconvnetError):
    """A wrong argument, configuration key, layer or unit. The command line exits with 2."""


class AnotherEnded(DeconvnetError):
    """Another of the processes that share a task has ended, and so this one must; the other said why."""


class UnreadableImage(DeconvnetError):
    """An image file that gives no picture. A scan skips it, names it and counts it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)  # both, so that the error survives the way back from a worker process
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def check_least(**arguments: tuple[int | None, int]) -> None:
    """Raises UsageError for the first of the arguments, each with the least that it may be, that is no such number.

    None, which stands for a default, is passed over.
    """
    for name, (value, least) in arguments.items():
        if value is None:
            continue
        if not isinstance(value, Integral) or value < least:
            raise UsageError(f"{name} must be a whole number, {least} at least, not {value}")


def brief(error: object) -> str:
    """What an error of another library says, in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]
