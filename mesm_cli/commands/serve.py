"""``mesm serve``: a web page and an API that answer about a collection of videos."""

from __future__ import annotations

import re
import signal
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from mesm_cli import options, render
from mesm_cli.commands.extract_options import PrecisionOption, Weights, weights_by_name
from mesm_cli.commands.locate_options import ClipLen, Model, Yes
from mesm_cli.commands.probe import seconds_of
from mesm_cli.entry import Interrupt
from mesm_cli.missing_weights import fetch_missing

ACCESS, UPLOADS = "Access", "Uploads"
UNITS = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}

Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="VIDEO…",
        help="Videos: files, folders, quoted patterns or .txt lists.",
        show_default=False,
    ),
]
Host = Annotated[
    str,
    typer.Option("--host", help="Address to listen on. Others than 127.0.0.1 need a token.", rich_help_panel=ACCESS),
]
Port = Annotated[
    int, typer.Option("--port", min=0, max=65_535, help="Port; 0 takes any free one.", rich_help_panel=ACCESS)
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="File with the token that clients must give. Default: $MESM_TOKEN. Without both, a token is made if other "
        "machines can reach the server.",
        show_default=False,
        rich_help_panel=ACCESS,
    ),
]
AllowedHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed-host",
        metavar="NAME",
        help="A name by which browsers reach the server, e.g. that of a reverse proxy. Repeatable.",
        show_default=False,
        rich_help_panel=ACCESS,
    ),
]
Uploads = Annotated[
    Path | None,
    typer.Option(
        "--uploads",
        metavar="DIR",
        help="Accept uploads, and write them to this folder. Its videos are served, too. Default: no uploads.",
        show_default=False,
        rich_help_panel=UPLOADS,
    ),
]
MaxUpload = Annotated[
    str,
    typer.Option(
        "--max-upload",
        metavar="SIZE",
        help="Largest size of an upload: bytes, or with kB, MB or GB.",
        rich_help_panel=UPLOADS,
    ),
]
Workers = Annotated[
    int, typer.Option("--workers", min=1, max=64, help="Queries that are answered at the same time, and clips cut.")
]


def serve(
    sources: Sources = None,
    model: Model = None,
    workers: Workers = 2,
    weights: Weights = None,
    clip: options.Clip = None,
    clip_len: ClipLen = None,
    data_dir: options.DataDir = None,
    device: options.Device = "auto",
    precision: PrecisionOption = None,
    yes: Yes = False,
    host: Host = "127.0.0.1",
    port: Port = 8765,
    token_file: TokenFile = None,
    allowed_host: AllowedHost = None,
    uploads: Uploads = None,
    max_upload: MaxUpload = "2GB",
    debug: options.Debug = False,
) -> None:
    """Serve a page on which videos, or those of an index, are searched and watched, and its API.

    The page needs no network. Only this machine can open it, unless --host names another address; clients then need a
    token, which is printed. Ctrl-C ends the server. Features are extracted when the page asks for it, and cached.

    Examples:

      mesm serve videos/

      mesm serve my.index

      mesm serve videos/ --model best.pt --host 0.0.0.0
    """
    _require_packages()
    from mesm_core.caches import clips_folder
    from mesm_core.web.app import create_app
    from mesm_core.web.guard import checked_names
    from mesm_core.web.opening import plan_collection
    from mesm_core.web.server import bind
    from mesm_core.web.server import serve as run
    from mesm_core.web.settings import WebSettings
    from mesm_core.web.token import chosen_token

    limit, allowed = _bytes_of(max_upload), checked_names(allowed_host or ())
    token, made = chosen_token(token_file, host)
    with bind(host, port) as listener:
        planned = plan_collection(
            sources or [],
            model,
            weights=weights_by_name(weights or []),
            clip=clip,
            clip_len=None if clip_len is None else seconds_of(clip_len),
            root=options.data_root(data_dir),
            uploads=uploads,
        )
        fetch_missing(planned.plan, yes=yes)
        collection = planned.open(device=device, precision=None if precision is None else precision.value)
        for warning in collection.notes:
            render.warn(warning)
        settings = WebSettings(
            clips=clips_folder(),
            host=host,
            allowed_hosts=allowed,
            token=token,
            uploads=uploads,
            max_upload=limit,
            running=workers,
            report=render.warn,
        )
        app = create_app(collection, settings)
        _show_address(listener, token if made else None)
        received = run(app, listener)
    render.note("Stopped.")
    if received == signal.SIGINT:
        raise Interrupt(received)


def _require_packages() -> None:
    missing = [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]
    if missing:
        from mesm_core.errors import ConfigError

        raise ConfigError(
            f"`mesm serve` needs {' and '.join(missing)}, which are not installed.", hint="pip install 'mesm[web]'"
        )


def _show_address(listener: socket.socket, token: str | None) -> None:
    """Print where the page is, and the token that was made."""
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    if token is not None:
        render.say(token, title="Token: ")
    render.say(f"http://{name}:{port}", title="Page: ")
    render.note("Ctrl-C ends the server.")


def _bytes_of(size: str) -> int:
    found = re.fullmatch(r"(\d{1,12})(?:\.(\d{1,3}))?\s*(kB|MB|GB|)", size.strip())
    if found is None or float(size.strip().removesuffix(found[3])) <= 0:
        raise typer.BadParameter(f"{size!r} is not a size, e.g. 500MB or 2GB", param_hint="--max-upload")
    return int(float(size.strip().removesuffix(found[3])) * UNITS[found[3]])
