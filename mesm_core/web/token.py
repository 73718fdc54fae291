"""The token of a server: given in a file or in the environment, or made."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from mesm_core.errors import ConfigError
from mesm_core.inputs import read_text
from mesm_core.web.guard import is_loopback

VARIABLE = "MESM_TOKEN"
SHORTEST = 16
LONGEST_FILE = 4096


def chosen_token(file: Path | None, host: str) -> tuple[str | None, bool]:
    """Return the token that clients must give, or None, and whether it was made here.

    A token is never taken from the command line, which other users of the machine can read.

    Args:
        file: a file that contains the token, or None for ``$MESM_TOKEN``; host: the address to listen on.

    Raises:
        ConfigError: the token is short, or has characters that no header can hold; DataError: the file is unreadable.
    """
    if file is not None:
        return _checked(read_text(file, what="file with a token").strip(), str(file)), False
    if given := os.environ.get(VARIABLE):
        return _checked(given.strip(), f"${VARIABLE}"), False
    return (None, False) if is_loopback(host) else (secrets.token_urlsafe(32), True)


def _checked(token: str, where: str) -> str:
    if (
        len(token) < SHORTEST
        or len(token) > LONGEST_FILE
        or not (token.isascii() and token.isprintable())
        or " " in token
    ):
        raise ConfigError(
            f"{where}: a token must have at least {SHORTEST} characters of ASCII, without spaces.",
            hint="`openssl rand -hex 32` makes one. Leave it out, and `mesm serve` makes one.",
        )
    return token
