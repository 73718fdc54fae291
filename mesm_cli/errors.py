"""A MesmError becomes a message and exit code 2; anything else is our fault and exit code 1."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable

from mesm_cli import render
from mesm_core.errors import MesmError

USER_ERROR, OUR_ERROR, INTERRUPTED, PIPE_CLOSED = 2, 1, 130, 141

_debug = False


def set_debug(value: bool) -> bool:
    """Show tracebacks from here on, if ``value`` is True."""
    global _debug
    _debug = _debug or value
    return value


def guard(run: Callable[[], object]) -> int:
    """Call ``run`` and return the exit code, with a message on stderr where it is not 0."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files that are not UTF-8 are printed as \udc..
            stream.reconfigure(errors="backslashreplace")
    try:
        run()
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except KeyboardInterrupt:
        render.note("Interrupted.")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has what it wanted (`| head`); the rest of stdout goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except MesmError as error:
        if _debug:
            traceback.print_exc(file=sys.stderr)
        render.error(error.message, error.hint)
        return USER_ERROR
    except Exception as error:
        if _debug:
            traceback.print_exc(file=sys.stderr)
        render.error(
            f"Unexpected {type(error).__name__}: {error}",
            "This is a fault in mesm, not in your input. Run the command again with --debug and report what it shows.",
        )
        return OUR_ERROR
    return 0
