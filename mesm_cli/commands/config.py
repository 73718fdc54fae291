"""``mesm config``: show and validate settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mesm_cli import options, render

app = typer.Typer(help="Show all settings and where each comes from, and validate config files.", no_args_is_help=True)


@app.command()
def show(
    dataset: options.Dataset = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Print every setting, and whether it comes from a default, the preset, a file or --set.

    Example:

      mesm config show --dataset tacos --set train.lr=1e-4
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
    """Validate config files. With --dataset they are read as changes to that preset."""
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
    """Convert a JSON config of the published implementation to TOML: a preset and the settings that differ from it.

    Flags for computations that mesm does not support are refused. Flags without effect here cause a warning.

    Examples:

      mesm config import config.json > mine.toml

      mesm train --config mine.toml
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
