"""Runs the application with uvicorn: the socket, the signals, and limits for slow clients."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from mesm_core.errors import ConfigError

HEADER_SECONDS = 15.0
"""Time in which the headers of a request must arrive."""
KEEP_ALIVE_SECONDS = 15
FINISH_SECONDS = 20
"""Time that requests have to finish after TERM."""
MOST_CONNECTIONS = 1000
BACKLOG = 256
SWITCH_SECONDS = 0.0005
"""Time after which a thread that computes lets others run: connections need little, but often."""
HEADER_BYTES = 32 * 1024


class PatientProtocol(H11Protocol):
    """Uvicorn's protocol, but a connection is closed if the headers of a request take too long."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first request."""
        super().connection_made(transport)
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        """Handle data; between two requests, start waiting for the rest of the next one's headers."""
        super().data_received(data)
        if self._answers():
            self._stop_waiting()
        elif self._patience is None:
            self._wait_for_headers()

    def on_response_complete(self) -> None:
        """Handle the end of a response; uvicorn then waits for the next request."""
        self._stop_waiting()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _answers(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_headers(self) -> None:
        self._patience = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        if not self._answers() and not self.transport.is_closing():
            self.transport.close()


class WebServer(uvicorn.Server):
    """Uvicorn's server, which returns after SIGINT or SIGTERM instead of raising it again.

    ``received``: the number of the signal. A server in another thread than the main one handles no signals.
    """

    def __init__(self, app: ASGIApp) -> None:
        config = Config(
            app,
            http=PatientProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="critical",  # faults are reported by the application
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=FINISH_SECONDS,
            limit_concurrency=MOST_CONNECTIONS,
            h11_max_incomplete_event_size=HEADER_BYTES,
        )
        super().__init__(config)
        self.received: int | None = None

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle the signals until the server has ended."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: Any) -> None:
            self.received = number
            self.handle_exit(number, frame)

        handlers = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address, so that a port in use is noticed before any work is done.

    Args:
        port: 0 for any free one.

    Raises:
        ConfigError: the port is in use, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"--host {host} is not an address: {getattr(error, 'strerror', None) or error}.",
            hint="Give an address of this machine, 127.0.0.1 for this machine only, or 0.0.0.0 for all its addresses.",
        ) from error
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(BACKLOG)  # clients wait until the model is loaded
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"Port {port} of {host} is in use by another program.",
                hint="Choose another one with --port; 0 takes any free port.",
            ) from error
        hint = "Ports below 1024 need root: choose another one." if error.errno == errno.EACCES else None
        raise ConfigError(f"{host}:{port} cannot be listened on: {error.strerror}.", hint=hint) from error
    return found


def serve(app: ASGIApp, listener: socket.socket) -> int | None:
    """Serve until SIGINT or SIGTERM arrives; what is under way is finished first.

    Returns:
        The number of the signal, or None.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    server = WebServer(app)
    server.run([listener])
    return server.received
