"""``mesm cache``: what is kept so that nothing is computed twice, and how to be rid of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from mesm_cli import options, render

app = typer.Typer(help="Show and clear the caches of features and of encoded sentences.", no_args_is_help=True)
DAY = 86_400


class What(StrEnum):
    """The caches, and all of them."""

    FEATURES = "features"
    TEXT = "text"
    ALL = "all"


Which = Annotated[What, typer.Argument(metavar="features|text|all", help="What to clear.")]
OlderThan = Annotated[
    float,
    typer.Option(
        "--older-than", metavar="DAYS", min=0, max=36_500, help="Only features that were not used for so many days."
    ),
]


@app.command("list")
def list_(json_: options.Json = False, debug: options.Debug = False) -> None:
    """Show the caches: where each lies, how much it holds, and how large it may grow.

    $MESM_CACHE says where they lie (default ~/.cache/mesm), $MESM_CACHE_GB how many GB of features are kept (default
    4); those that were not used for the longest time go first. Weights: `mesm weights list`.
    """
    from mesm_core.extraction.kept import list_caches
    from mesm_core.places import size_text

    caches = list_caches()
    if json_:
        render.data([cache.as_json() for cache in caches])
        return
    rows = [
        (
            cache.name,
            cache.entries,
            size_text(cache.size),
            "no limit" if cache.limit is None else size_text(cache.limit),
            cache.path,
        )
        for cache in caches
    ]
    render.table(["cache", "entries", "size", "limit", "path"], rows)


@app.command("clear")
def clear(what: Which, older_than: OlderThan = 0, json_: options.Json = False, debug: options.Debug = False) -> None:
    """Remove what is kept; it is computed again when it is needed. Weights stay.

    Examples: mesm cache clear features --older-than 30

    mesm cache clear all
    """
    from mesm_core.extraction.kept import clear_caches
    from mesm_core.places import size_text

    if older_than and what is not What.FEATURES:
        raise typer.BadParameter("it is known of features only, when they were last used", param_hint="--older-than")
    cleared = clear_caches({"features", "text"} if what is What.ALL else {what.value}, older_than=older_than * DAY)
    if json_:
        render.data([cache.as_json() for cache in cleared])
        return
    for cache in cleared:
        render.say(render.plain(f"{cache.name}: {cache.entries} removed, {size_text(cache.size)}"))
