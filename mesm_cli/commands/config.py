"""``mesm config``: show and check settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mesm_cli import options, render

app = typer.Typer(help="Show a run's settings and where each came from; check config files.", no_args_is_help=True)


@app.command()
def show(
    dataset: options.Dataset = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Print every setting, and whether it comes from a default, the preset, a file or --set.

    Example: mesm config show --dataset tacos --set train.lr=1e-4
    """
    from mesm_core.config import load

    stack = load.layers(dataset, file=config, overrides=set_ or [])
    values = load.resolve(stack).model_dump(mode="json")
    if json_:
        render.data(values)
        return
    origin = load.sources(stack)
    render.keys((key, value, origin[key]) for key, value in load.flatten(values))


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="TOML files, or a run's config.json.")],
    dataset: options.Dataset = None,
    debug: options.Debug = False,
) -> None:
    """Check config files; with --dataset, as changes to that preset."""
    from mesm_core.config import load

    for file in files:
        load.resolve(load.layers(dataset, file=file, overrides=[]))
        render.say(f"{file}: ok")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="JSON config or opt.json of the published implementation.")],
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Print the published implementation's JSON config as a TOML file of ours: a preset, and what differs from it.

    Flags that ask for a computation that is not supported are refused; those that have no effect here are warned of.

    Example: mesm config import config.json > mine.toml; then mesm train --config mine.toml
    """
    from mesm_core.config.load import file_layer, over_preset
    from mesm_core.official.config import config_from_flags, flag_warnings

    flags = file_layer(file).values
    config = config_from_flags(flags, source=str(file))
    for warning in flag_warnings(flags, source=str(file)):
        render.warn(warning)
    if json_:
        render.data(config.model_dump(mode="json"))
        return
    name, changes = over_preset(config)
    render.toml(changes, top={"preset": name})
