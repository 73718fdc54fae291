"""Exit codes: a MesmError is printed as a message with exit code 2; other exceptions are defects, with exit code 1."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from mesm_cli import render
from mesm_cli.entry import INTERRUPTED, Interrupt
from mesm_core.errors import MesmError
from mesm_core.torchrun import this_process

if TYPE_CHECKING:
    import typer

# Write errors without a file name. They come from standard output, since mesm_core.files writes all files.
STDOUT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
# Errors of a path that the user gave.
PATH_ERRORS = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EMFILE}
USER_ERROR, OUR_ERROR, PIPE_CLOSED = 2, 1, 141

_debug = False


def set_debug(value: bool) -> bool:
    """Show tracebacks from now on if ``value`` is True."""
    global _debug
    _debug = _debug or value
    return value


def is_repeated() -> bool:
    """Return whether another process prints this one's mistakes: the first that torchrun started on this machine.

    All processes of a team read the same command line and the same files, and make the same mistakes.
    """
    return this_process().local_rank > 0 and "train" in sys.argv


def without_usage_errors(app: typer.Typer) -> None:
    """Run the app, but leave with an exit code where it would print what is wrong with the command line."""
    try:
        code = app(standalone_mode=False)
    except Exception as error:
        if not hasattr(error, "exit_code"):
            raise
        code = error.exit_code
    if isinstance(code, int) and code:
        raise SystemExit(code)


def guard(run: Callable[[], object], *, interrupted: Callable[[], bool] = lambda: False) -> int:
    """Call ``run`` and return the exit code. If it is not 0, print a message on stderr.

    If several processes make the same mistake, one of them prints it.

    Args:
        interrupted: returns whether Ctrl-C was pressed; an error after that is reported as an interruption.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # print file names that are not UTF-8 as \udc..
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            run()
        except SystemExit:
            sys.stdout.flush()  # while a full disk can still be reported
            raise
        sys.stdout.flush()
    except SystemExit as done:
        if isinstance(done.__context__, BrokenPipeError):  # typer turns it into exit code 1
            return _reader_stopped()
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except (KeyboardInterrupt, Interrupt) as error:
        render.note("Interrupted.")
        return error.code if isinstance(error, Interrupt) else INTERRUPTED
    except BrokenPipeError:
        return _reader_stopped()
    except MesmError as error:
        if _debug:
            traceback.print_exc(file=sys.stderr)
        if not is_repeated():
            _print_error(error.message, error.hint)
        return USER_ERROR
    except Exception as error:
        if _debug:
            traceback.print_exc(file=sys.stderr)
        if interrupted():
            render.note("Interrupted.")
            return INTERRUPTED
        if isinstance(error, OSError) and error.errno in STDOUT_ERRORS and error.filename is None:
            _silence(sys.stdout)
            _print_error(
                f"Standard output could not be written: {error.strerror}.", "Is it closed, or is the disk full?"
            )
            return USER_ERROR
        if isinstance(error, OSError) and error.errno in PATH_ERRORS and error.filename is not None:
            _print_error(f"{error.filename}: {error.strerror}.", None)
            return USER_ERROR
        _print_error(
            f"Unexpected {type(error).__name__}: {error}",
            "This is a fault in mesm, not in your input. Run the command again with --debug and report the traceback.",
        )
        return OUR_ERROR
    return 0


def _reader_stopped() -> int:
    """Discard the rest of the output, which nobody reads any more (`| head`), and return the exit code."""
    _silence(sys.stdout)
    try:
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)
    return PIPE_CLOSED


class _Closed(io.TextIOBase):
    """Replaces a standard output that was closed before the program began."""

    def write(self, text: str) -> int:
        """Refuse the text."""
        raise OSError(errno.EBADF, "it is closed")


def open_standard_streams() -> None:
    """Open standard input, output and error if they are closed, so that no other file gets their descriptors."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115
    if sys.stdout is None:
        sys.stdout = _Closed()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def _print_error(message: str, hint: str | None) -> None:
    """Print an error. Ignore a standard error that cannot be written."""
    try:
        render.error(message, hint)
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
    """Discard the rest of a stream, so that the interpreter does not report an error when it exits."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
