"""``mesm cache``: list and clear the caches of features, encoded sentences and clips."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from mesm_cli import options, render

app = typer.Typer(help="List and clear the caches of features, encoded sentences and clips.", no_args_is_help=True)
DAY = 86_400


class What(StrEnum):
    """Names of the caches, or all of them."""

    FEATURES = "features"
    TEXT = "text"
    CLIPS = "clips"
    ALL = "all"


Which = Annotated[What, typer.Argument(metavar="features|text|clips|all", help="Cache to clear.")]
OlderThan = Annotated[
    float,
    typer.Option(
        "--older-than",
        metavar="DAYS",
        min=0,
        max=36_500,
        help="Clear only features that were not used for this many days.",
    ),
]


@app.command("list")
def list_(json_: options.Json = False, debug: options.Debug = False) -> None:
    """List the caches with their paths, sizes and limits.

    $MESM_CACHE is their folder (default: ~/.cache/mesm). $MESM_CACHE_GB is the limit of the cache of features in GB
    (default: 4); the least recently used features are removed first. The clips are those of `mesm serve`. For weights
    see `mesm weights list`.
    """
    from mesm_core.extraction.cache_contents import list_caches
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
    """Remove cached features, sentences or clips. They are made again when they are needed. Weights are kept.

    Examples:

      mesm cache clear features --older-than 30

      mesm cache clear all
    """
    from mesm_core.extraction.cache_contents import clear_caches
    from mesm_core.places import size_text

    if older_than and what is not What.FEATURES:
        raise typer.BadParameter("the last use is recorded for features only", param_hint="--older-than")
    cleared = clear_caches(
        {"features", "text", "clips"} if what is What.ALL else {what.value}, older_than=older_than * DAY
    )
    if json_:
        render.data([cache.as_json() for cache in cleared])
        return
    for cache in cleared:
        render.say(f"{cache.name}: {cache.entries} removed, {size_text(cache.size)}")
