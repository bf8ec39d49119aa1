"""The command line: what is parsed, and what exit code comes back. ``deconvnet --help`` lists the commands.

Nothing heavy is imported until a command runs, so that help answers at once.
"""

import atexit
import os
import re
import shlex
import sys
import warnings
from argparse import ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from difflib import get_close_matches
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from .commands import COMMANDS
from .errors import AnotherEnded, DeconvnetError, UsageError
from .stopping import end_at_once, handled_by, ignore, stoppable, tell_torchrun


def program() -> NoReturn:
    """The command line as a program of its own, whose end Ctrl-C and TERM only hasten."""
    with suppress(OSError, ValueError):
        if os.get_terminal_size(sys.stderr.fileno()).columns == 0:  # it does not say, and tqdm would draw no bar
            os.environ.setdefault("TQDM_NCOLS", "80")
    atexit.register(ignore)  # last of all, for Python then undoes handlers: a signal would end it with another code
    code = main()
    with suppress(OSError):  # nobody reads it any more
        sys.stdout.flush()  # whoever ends at once leaves what was printed behind
    end_at_once(code)
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and gives its exit code: 0 done, 1 failed, 2 wrong usage, 130 or 143 stopped by Ctrl-C or TERM.

    Without arguments it is a program of its own, takes those of the command line, and a second Ctrl-C ends it at once.
    """
    typed = list(sys.argv[1:] if arguments is None else arguments)
    again = _command_line(typed)
    stopped = f"stopped; the same command goes on where it can: {again}"
    quiet = os.environ.get("RANK", "0") != "0"  # of several processes the first speaks

    def leave(number: int) -> None:
        if arguments is None:
            _leave(f"stopped at once; the same command goes on from what was saved: {again}", 128 + number)

    def end(number: int, frame: FrameType | None) -> None:
        tell_torchrun(stopped, after_another=True)
        _leave("" if quiet else stopped, 128 + number)

    try:
        with stoppable(stopped, leave) as stop_if_asked:
            return _run(typed, stop_if_asked, end if arguments is None else None)
    except KeyboardInterrupt as error:  # also one that comes while the handlers are given back
        return _complain(_told(error, again), getattr(error, "code", 130), after_another=True, quiet=quiet)


def _run(typed: list[str], stop_if_asked: Callable[[], None],
         end: Callable[[int, FrameType | None], None] | None = None) -> int:
    """Runs a command and gives its exit code; KeyboardInterrupt passes."""
    words = [re.sub(r"^--[\w-]+", lambda option: "--" + option[0][2:].replace("-", "_"), word) for word in typed]
    debug = "--debug" in words
    warnings.formatwarning = lambda message, *_, **__: f"deconvnet: {message}\n"  # no path, no line of our code
    try:
        command, options = _parse([word for word in words if word != "--debug"])
        # torch takes seconds, and a signal that comes meanwhile is swallowed, or makes it abort; as yet it may end all
        with handled_by(end) if end else nullcontext():
            import torch  # noqa: F401
        command(**options)
        return 0
    except Exception as error:
        if debug:
            raise
        if isinstance(error, (DeconvnetError, OSError)):
            return _complain(str(error), 2 if isinstance(error, UsageError) else 1, isinstance(error, AnotherEnded))
        stop_if_asked()  # libraries in C that are interrupted while they are imported raise errors of their own
        return _complain(f"{type(error).__name__}: {error}\nThat was not foreseen; --debug shows where it happened.", 1)


# ---- parsing ----

_POSITIONAL = {"describe": ["model"], "gallery": ["file"], "figure": ["number"], "table": ["number"],
               "compare": ["model1", "model2"], "atlas": ["file"], "serve": ["folder"]}
_OWN_CONFIG = ("train", "figure", "table")  # whose --config is not a file of their options
_ABOUT = """See what every unit of a convolutional network has learned: the nine strongest activations of each feature
map, projected back to pixels, beside the image patches that caused them (Zeiler and Fergus 2014).

Begin with: deconvnet demo"""


class _Parser(ArgumentParser):
    """A parser whose help spells --batch-size with dashes; both spellings are taken."""

    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """The help text."""
        return re.sub(r"--\w+", lambda option: option[0].replace("_", "-"), super().format_help(*args, **kwargs))


class _HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Help that keeps the paragraphs of a description."""


def _parse(words: list[str]) -> tuple[Callable[..., None], dict[str, Any]]:
    """The command and its options. Defaults < --config file < command line."""
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    command = words[0] if words and words[0] in COMMANDS else ""
    parser = _parser(command, _file_options(command, words) if command else {})
    if not words:
        parser.print_help()
        raise SystemExit(2)
    try:
        parsed = parser.parse_args(words)
    except ArgumentError as error:
        raise UsageError(_explain(str(error), command)) from error
    options = vars(parsed[parsed.command])
    return COMMANDS[parsed.command], {p: options[p] for p in signature(COMMANDS[parsed.command]).parameters}


def _parser(chosen: str, defaults: dict[str, Any]) -> _Parser:
    """The parser of all commands, in which the chosen one has some other defaults."""
    parser = _Parser(prog="deconvnet", version=version("deconvnet"), description=_ABOUT,
                     formatter_class=_HelpFormatter, exit_on_error=False, allow_abbrev=False)
    chooser = parser.add_subcommands(dest="command")
    for name, command in COMMANDS.items():
        text = parse_docstring(command.__doc__ or "")
        helps = {p.arg_name: p.description or "" for p in text.params}
        sub = _Parser(description=f"{text.short_description}\n\n{text.long_description or ''}",
                      formatter_class=_HelpFormatter, exit_on_error=False, allow_abbrev=False)
        flags = [p.name for p in signature(command).parameters.values() if p.default is False]
        by_hand: set[str | int] = {*flags, *_POSITIONAL.get(name, [])}
        for positional in _POSITIONAL.get(name, []):
            sub.add_argument(positional, type=str, help=helps[positional])
        sub.add_function_arguments(command, as_group=False, skip=by_hand)
        for flag in flags:
            sub.add_argument(f"--{flag}", action="store_true", help=helps[flag])
        if name not in _OWN_CONFIG:
            sub.add_argument("--config", type=str, help="YAML file with any of these options; words here go first")
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == chosen:
            sub.set_defaults(defaults)
        chooser.add_subcommand(name, sub, help=text.short_description)
    return parser


def _file_options(command: str, words: list[str]) -> dict[str, Any]:
    """The options in the file after --config, if there is one, checked against those of the command."""
    if command in _OWN_CONFIG or "--config" not in words[:-1]:
        return {}
    from pydantic import ConfigDict, create_model

    from .config import load

    fields: Any = {p.name: (p.annotation, None) for p in signature(COMMANDS[command]).parameters.values()}
    options = create_model(f"deconvnet {command}", __config__=ConfigDict(extra="forbid"), **fields)
    return load(words[words.index("--config") + 1], options).model_dump(exclude_unset=True)


def _explain(message: str, command: str) -> str:
    """A parser's message, with what comes nearest to a word that it does not know."""
    unknown = re.search(r"(?:unrecognized arguments:|invalid choice:) '?([\w-]+)", message)
    known = [f"--{name}" for name in signature(COMMANDS[command]).parameters] if command else list(COMMANDS)
    near = get_close_matches(unknown[1], known, n=1) if unknown else []
    if near and near[0][2:] in _POSITIONAL.get(command, []):
        near = [f"{near[0][2:].upper()} without {near[0]}"]
    message = message.replace(f"{command}.", "") if command else message
    see = f"deconvnet {command} --help" if command else "deconvnet --help"
    return message + (f" Did you mean {near[0]}?" if near else "") + f"\nSee: {see}"


def _command_line(typed: Sequence[str]) -> str:
    """What to type for the same again, quoted for a shell; without the path of the program, which is this machine's."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return f"torchrun … deconvnet {shlex.join(typed)}"
    module = Path(sys.argv[0]).parts[-2:] == ("deconvnet", "__main__.py")
    return shlex.join([*(["python", "-m"] if module else []), "deconvnet", *typed])


def _told(error: KeyboardInterrupt, again: str) -> str:
    """What to say after Ctrl-C: what it said itself, and with what command to go on if that is not the last word."""
    said = str(error) or "stopped; the same command again goes on where it can"
    return said if again in said or said.endswith(".") else f"{said}: {again}"


def _leave(message: str, code: int) -> None:
    """Ends this process and those that it began, at once, in whatever they are."""
    if "multiprocessing" in sys.modules:
        for child in sys.modules["multiprocessing"].active_children():
            child.kill()
    if message:
        os.write(2, f"\ndeconvnet: {message}\n".encode(errors="backslashreplace"))
    os._exit(code)


def _complain(message: str, code: int, after_another: bool = False, quiet: bool = False) -> int:
    """Prints an error, without a traceback, and gives the exit code."""
    if not quiet:
        print(f"deconvnet: {message}", file=sys.stderr)
    tell_torchrun(message, after_another)
    return code
