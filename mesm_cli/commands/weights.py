"""``mesm weights``: the weights of the backbones. Only ``pull`` downloads files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mesm_cli import options, render

app = typer.Typer(help="List, download, find and verify the weights of backbones.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the weights, as shown by `mesm weights list`.")]
From = Annotated[
    Path | None,
    typer.Option("--from", metavar="FILE", help="Copy this file instead of downloading one.", show_default=False),
]


@app.command("list")
def list_(data_dir: options.DataDir = None, json_: options.Json = False, debug: options.Debug = False) -> None:
    """List the known weights: name, size, licence, purpose, and path if the file exists.

    `unverified` means that no checksum is known, so the file cannot be verified.
    """
    from mesm_core.backbones import weights

    root = options.data_root(data_dir)
    rows = []
    for entry in weights.table().values():
        found = next((path for path in weights.places(entry, root=root) if weights.file_exists(path)), None)
        rows.append((entry, None if found is None else str(found)))
    if json_:
        render.data([entry.as_json() | {"path": path} for entry, path in rows])
        return
    render.table(
        ["name", "size", "checksum", "licence", "path", "purpose"],
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
    """Download weights to the cache ($MESM_CACHE/weights, by default ~/.cache/mesm/weights) and verify them.

    Run the command again to continue an interrupted download. $HF_ENDPOINT names a mirror of Hugging Face, and
    $MESM_WEIGHTS a table with other addresses.

    Examples:

      mesm weights pull clip-b32

      mesm weights pull clip-b32 --from ~/Downloads/ViT-B-32.pt
    """
    from mesm_core.backbones import fetching, weights

    entry = weights.known_weights(name)
    with render.bytes_progress("Copying" if source else "Downloading", entry.size) as advance:
        if source is not None:
            path = weights.take_file(entry, source, overwrite=overwrite, progress=advance)
        else:
            path = fetching.pull(entry, overwrite=overwrite, progress=advance)
    if json_:
        render.data(entry.as_json() | {"path": str(path)})
        return
    render.say(f"{path}: {entry.purpose} (licence: {entry.licence})")
    if entry.sha256 is None:
        render.warn(f"No checksum of {entry.file} is known, so the file was not verified.")


@app.command("where")
def where(
    name: Name, data_dir: options.DataDir = None, json_: options.Json = False, debug: options.Debug = False
) -> None:
    """Print the path of a weights file. If it is missing, say which file is needed and where to put it.

    Example:

      mesm prepare clip-text "$(mesm weights where clip-b32)" text.safetensors
    """
    from mesm_core.backbones import weights

    path = weights.require_weights(name, root=options.data_root(data_dir))
    if json_:
        render.data(weights.known_weights(name).as_json() | {"path": str(path)})
    else:
        render.say(str(path))


@app.command("verify")
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="Weights to verify. Default: all that are on this machine.", show_default=False
        ),
    ] = None,
    data_dir: options.DataDir = None,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Verify weights files with their known checksums, or with those recorded when they were downloaded."""
    from mesm_core.backbones import weights
    from mesm_core.errors import FeatureError, listing

    root = options.data_root(data_dir)
    entries = [weights.known_weights(name) for name in names] if names else list(weights.table().values())
    checked = []
    with render.progress("Checking", None) as advance:
        for entry in entries:
            here = [path for path in weights.places(entry, root=root) if weights.file_exists(path)]
            for path in here or (weights.places(entry)[-1:] if names else []):
                checked.append((entry, path, weights.state_of(entry, path)))
                advance(1, entry.name)
    if json_:
        render.data([{"name": entry.name, "path": str(path), "state": state} for entry, path, state in checked])
    elif checked:
        render.findings([(LEVELS[state], entry.name, f"{path}: {MEANINGS[state]}") for entry, path, state in checked])
    else:
        render.say("There are no weights on this machine. `mesm weights list` shows the known ones.")
    bad = [str(path) for _, path, state in checked if state in {"wrong", "missing"}]
    if bad:
        raise FeatureError(
            f"Missing or damaged: {listing(bad)}.", hint="Download them again: mesm weights pull NAME --overwrite."
        )


LEVELS = {"verified": "ok", "unverified": "warning", "wrong": "damaged", "missing": "missing"}
MEANINGS = {
    "verified": "the right file",
    "unverified": "no checksum is known; if mesm downloaded the file, it is unchanged since",
    "wrong": "the checksum differs: the file is damaged, or it is another file",
    "missing": "the file does not exist",
}
