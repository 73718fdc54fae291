"""``mesm weights``: the files of weights that backbones need; nothing is fetched but by ``pull``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mesm_cli import options, render

app = typer.Typer(help="List, fetch, find and check the weights of backbones.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the weights, as `mesm weights list` shows it.")]
From = Annotated[
    Path | None,
    typer.Option("--from", metavar="FILE", help="Copy this file instead of fetching one.", show_default=False),
]


@app.command("list")
def list_(data_dir: options.DataDir = None, json_: options.Json = False, debug: options.Debug = False) -> None:
    """Show the weights that are known: what each is for, its licence and size, and where it lies if it is here.

    `unverified` means that no check sum is known, so that a file can only be taken as it comes.
    """
    from mesm_core.backbones import weights

    root = options.data_root(data_dir)
    rows = []
    for entry in weights.table().values():
        found = next((path for path in weights.places(entry, root=root) if weights.is_there(path)), None)
        rows.append((entry, None if found is None else str(found)))
    if json_:
        render.data([entry.as_json() | {"path": path} for entry, path in rows])
        return
    render.table(
        ["name", "size", "check sum", "licence", "here", "for"],
        [
            (
                entry.name,
                weights.size_of(entry),
                "known" if entry.sha256 else "unverified",
                entry.licence,
                path,
                entry.purpose,
            )
            for entry, path in rows
        ],
    )


@app.command("pull")
def pull(
    name: Name,
    source: From = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Fetch a file of weights to the cache ($MESM_CACHE/weights, or ~/.cache/mesm/weights), and check it.

    A transfer that broke goes on where it stopped when the command is run again. $HF_ENDPOINT names a mirror of
    Hugging Face, $MESM_WEIGHTS a table of addresses of your own.

    Examples: mesm weights pull clip-b32

    mesm weights pull clip-b32 --from ~/Downloads/ViT-B-32.pt
    """
    from mesm_core.backbones import fetching, weights

    entry = weights.known_weights(name)
    with render.bytes_progress("Copying" if source else "Fetching", entry.size) as advance:
        if source is not None:
            path = weights.take_file(entry, source, overwrite=overwrite, progress=advance)
        else:
            path = fetching.pull(entry, overwrite=overwrite, progress=advance)
    if json_:
        render.data(entry.as_json() | {"path": str(path)})
        return
    render.say(render.plain(f"{path}: {entry.purpose} (licence: {entry.licence})"))
    if entry.sha256 is None:
        render.warn(f"No check sum of {entry.file} is known: whether it is the right file was not checked.")


@app.command("where")
def where(
    name: Name, data_dir: options.DataDir = None, json_: options.Json = False, debug: options.Debug = False
) -> None:
    """Print where a file of weights lies; where it is not here, say which file belongs where.

    Example: mesm prepare clip-text "$(mesm weights where clip-b32)" data/clip_text_encoder.safetensors
    """
    from mesm_core.backbones import weights

    path = weights.require_weights(name, root=options.data_root(data_dir))
    if json_:
        render.data(weights.known_weights(name).as_json() | {"path": str(path)})
    else:
        render.say(render.plain(str(path)))


@app.command("verify")
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Weights to check. Default: all that are here.", show_default=False),
    ] = None,
    data_dir: options.DataDir = None,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Compare files of weights with the table's check sums, or with those noted when they were fetched."""
    from mesm_core.backbones import weights
    from mesm_core.errors import FeatureError, listing

    root = options.data_root(data_dir)
    entries = [weights.known_weights(name) for name in names] if names else list(weights.table().values())
    checked = []
    with render.progress("Checking", None) as advance:
        for entry in entries:
            here = [path for path in weights.places(entry, root=root) if weights.is_there(path)]
            for path in here or (weights.places(entry)[-1:] if names else []):
                checked.append((entry, path, weights.state_of(entry, path)))
                advance(1, entry.name)
    if json_:
        render.data([{"name": entry.name, "path": str(path), "state": state} for entry, path, state in checked])
    elif checked:
        render.findings([(LEVELS[state], entry.name, f"{path}: {MEANINGS[state]}") for entry, path, state in checked])
    else:
        render.say("No weights are here. `mesm weights list` shows which there are.")
    bad = [str(path) for _, path, state in checked if state in {"wrong", "missing"}]
    if bad:
        raise FeatureError(
            f"Not as they should be: {listing(bad)}.", hint="Fetch them again: mesm weights pull NAME --overwrite."
        )


LEVELS = {"verified": "ok", "unverified": "warning", "wrong": "damaged", "missing": "missing"}
MEANINGS = {
    "verified": "the right file",
    "unverified": "no check sum is known for it; it is as it was fetched, where it was fetched by mesm",
    "wrong": "its check sum is another: it is damaged, or another file",
    "missing": "there is no such file",
}
