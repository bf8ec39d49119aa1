"""The errors that a user is meant to read: what is wrong, in which file or key, and what to do."""


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


def brief(error: object) -> str:
    """What an error of another library says, in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]
