"""Where the program begins: Ctrl-C and OpenMP's way to wait are seen to before anything else is imported.

Nothing is imported here that the interpreter has not loaded already.
"""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

_WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
_SPINS = "1000"
_SOON = 0.05


class Interrupt(BaseException):
    """A signal ends the program. Unlike KeyboardInterrupt no library catches it on the way.

    ``code``: the exit code, 128 and the signal's number.
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

    heeded = signal.getsignal(signal.SIGINT) != signal.SIG_IGN  # as in a shell's background job
    if heeded:
        signal.signal(signal.SIGINT, _leave)
    wait_politely()
    from mesm_cli.app import app
    from mesm_cli.errors import guard, is_repeated, open_standard_streams, without_usage_errors

    open_standard_streams()
    handler = Interrupts()
    if heeded:
        sys.unraisablehook = handler.unraisable
        signal.signal(signal.SIGINT, handler)
    run = (lambda: without_usage_errors(app)) if is_repeated() else app
    code = guard(run, interrupted=lambda: handler.received)
    # The end of threads and of the interpreter would be interrupted with a traceback.
    if heeded:
        signal.signal(signal.SIGINT, _leave)
    return code


def wait_politely() -> None:
    """Let OpenMP's threads wait for each other without keeping a core busy for long, unless the user chose how.

    Threads that wait busily take the core from those they wait for, where other programs run. OpenMP reads the setting
    when it is loaded, with torch.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ["GOMP_SPINCOUNT"] = _SPINS


class Interrupts:
    """What Ctrl-C does while a command runs: it raises ``Interrupt``, again where that was swallowed.

    ``received``: it was pressed. An extension module that is being imported turns the exception into an ImportError.
    """

    def __init__(self) -> None:
        self.received = False

    def __call__(self, number: int, _: object) -> None:
        """Handle the signal."""
        self.received = True
        raise Interrupt(number)

    def unraisable(self, raised: sys.UnraisableHookArgs) -> None:
        """Handle an exception that came where none can be raised, as in a callback of the import system."""
        if not issubclass(raised.exc_type, Interrupt):
            sys.__unraisablehook__(raised)
            return
        import signal
        from threading import Timer

        # Sent to the process, not to the timer's own thread: the main thread may be waiting in a system call.
        again = Timer(_SOON, os.kill, [os.getpid(), signal.SIGINT])
        again.daemon = True
        again.start()


def _leave(*_: object) -> None:
    """End at once: nothing has begun that would have to be ended in order, or all has ended."""
    os.write(2, b"Interrupted.\n")
    os._exit(INTERRUPTED)
