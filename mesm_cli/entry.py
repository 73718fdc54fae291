"""Entry point: sets up Ctrl-C and OpenMP before anything else is imported.

This module imports only what the interpreter has loaded already.
"""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

_WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
_SPINS = "1000"
_SOON = 0.05
_COLLECT_AFTER = 10_000


class Interrupt(BaseException):
    """Raised when a signal ends the program. Unlike KeyboardInterrupt, no library catches it.

    ``code``: the exit code, 128 plus the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


def main() -> None:
    """Run the command line and exit."""
    try:
        sys.exit(_run())
    except (KeyboardInterrupt, Interrupt):
        _leave()


def _run() -> int:
    import signal

    handles_interrupts = signal.getsignal(signal.SIGINT) != signal.SIG_IGN  # ignored in a shell's background job
    if handles_interrupts:
        signal.signal(signal.SIGINT, _leave)
    limit_busy_waiting()
    limit_garbage_collection()
    from mesm_cli.app import app
    from mesm_cli.errors import guard, is_repeated, open_standard_streams, without_usage_errors

    open_standard_streams()
    handler = Interrupts()
    if handles_interrupts:
        sys.unraisablehook = handler.unraisable
        signal.signal(signal.SIGINT, handler)
    run = (lambda: without_usage_errors(app)) if is_repeated() else app
    code = guard(run, interrupted=lambda: handler.received)
    # From here on Ctrl-C must not print a traceback while threads and the interpreter shut down.
    if handles_interrupts:
        signal.signal(signal.SIGINT, _leave)
    return code


def limit_busy_waiting() -> None:
    """Let OpenMP's threads wait for each other without occupying a core, unless the user chose otherwise.

    If other programs run, a thread that waits busily takes the core from the threads that it waits for. OpenMP reads
    the setting when it is loaded together with torch.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ["GOMP_SPINCOUNT"] = _SPINS


def limit_garbage_collection() -> None:
    """Look for reference cycles after 10,000 new objects instead of 700, and not when the interpreter shuts down.

    Imports create a hundred thousand objects that live until the end. Searching them again and again takes a fifth of
    the time of a short command that imports torch.
    """
    import atexit
    import gc

    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)


class Interrupts:
    """Signal handler of a running command: raises ``Interrupt``, and raises it again if it was swallowed.

    ``received``: whether Ctrl-C was pressed. An extension module that is being imported can turn the exception into an
    ImportError.
    """

    def __init__(self) -> None:
        self.received = False

    def __call__(self, number: int, _: object) -> None:
        """Handle the signal."""
        self.received = True
        raise Interrupt(number)

    def unraisable(self, raised: sys.UnraisableHookArgs) -> None:
        """Handle an exception where none can be raised, for example in a callback of the import system."""
        if not issubclass(raised.exc_type, Interrupt):
            sys.__unraisablehook__(raised)
            return
        import signal
        from threading import Timer

        # Signals the process, not the timer's thread: the main thread may be waiting in a system call.
        again = Timer(_SOON, os.kill, [os.getpid(), signal.SIGINT])
        again.daemon = True
        again.start()


def _leave(*_: object) -> None:
    """Exit at once. Safe before any work has begun and after all of it has ended."""
    os.write(2, b"Interrupted.\n")
    os._exit(INTERRUPTED)
