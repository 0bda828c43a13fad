"""What stands between a command and the shell: exit codes, one line for each mistake, streams that may be closed.

Exit codes are those of ``skd.errors``; 130 after Ctrl-C, 141 when the reader of a pipe has gone, 70 for a fault of
ours.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Callable
from typing import TextIO

from typer import Abort

from skd.errors import SkdError
from skd.text import visible

__all__ = ["exit_code_of"]


def exit_code_of(command: Callable[[], int]) -> int:
    """Run a command that returns its exit code; what it raises becomes one line on standard error and a code."""
    _prepare_streams()
    _quiet_libraries()
    try:
        code = command()
        sys.stdout.flush()
        return code
    except SkdError as error:
        from skd.config.credentials import hidden

        _print_error(hidden(str(error)))
        return error.exit_code
    except (KeyboardInterrupt, Abort):
        return 130
    except BrokenPipeError:
        _discard(sys.stdout)
        return 141
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        _discard(sys.stdout)
        place = error.filename or "standard output"
        _print_error(f"error[SKD-H09] {place}: cannot be written ({error.strerror}); free space, or write elsewhere")
        return 8
    usage = _usage_message(error)
    if usage is not None:
        _print_error(usage)
        return 2
    _print_error(_fault(error))
    return 70


def _quiet_libraries() -> None:
    # Where these are installed, transformers and peft import them, and on a CPU they complain of missing kernels.
    for name in ("bitsandbytes", "torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _usage_message(error: Exception) -> str | None:
    """The message of a mistake on the command line; None for other exceptions.

    The classes are those of click or of the copy inside typer, depending on typer's version: told by what they offer.
    """
    describe = getattr(error, "format_message", None)
    if describe is None:
        return None
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "skd"
    if type(error).__name__ == "NoArgsIsHelpError":
        return str(describe())
    found = str(describe()).rstrip(".").replace("Value error, ", "")
    option = str(getattr(error, "option_name", ""))
    if "." in option:
        remedy = f"write a change of the config without dashes: {option.lstrip('-')}=VALUE"
    else:
        remedy = _nearest_choice(found) or f"see {command} --help"
    return f"error[SKD-L01] {command}: {found}; {remedy}"


def _nearest_choice(message: str) -> str | None:
    """``did you mean ...?`` for a message such as ``'tain' is not one of 'train', 'test'``."""
    import difflib
    import re

    value, said, choices = message.partition(" is not one of ")
    names = re.findall(r"'([^']*)'", choices)
    near = difflib.get_close_matches(value.rpartition(" ")[2].strip("'"), names, n=1) if said else []
    return f"did you mean {near[0]}?" if near else None


def _fault(error: Exception) -> str:
    """Write the traceback to a file and say where; the terminal gets one line."""
    import tempfile
    import traceback

    from skd.config.credentials import hidden, quoted

    with tempfile.NamedTemporaryFile(
        "w", prefix="skd-traceback-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(hidden("".join(traceback.format_exception(error))))
    what = f"{type(error).__name__}: {quoted(hidden(str(error)), 200)[1:-1]}"
    return f"error[SKD-70] unexpected {what}; this is a fault of skd: please report it with {file.name}"


def _print_error(text: str) -> None:
    try:
        print(visible(text), file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """What is still in the buffer would be written, and fail, once more at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _prepare_streams() -> None:
    """A character that the terminal's encoding lacks becomes an escape, and a stream that is closed a silent one.

    Left closed, the number of standard output or error would be given to the next file that is opened.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115 - open until the end
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
