"""The Typer app, with one line for each command. Does not import torch, so that help is fast."""

from __future__ import annotations

from mesm_cli.entry import main

if __name__ == "__main__":
    main()  # before the imports below, so that Ctrl-C during them is handled; does not return

from typing import Annotated

import typer

from mesm_cli import formats, options
from mesm_cli.commands import (
    bench,
    cache,
    calibrate,
    config,
    demo,
    doctor,
    evaluate,
    export,
    extract,
    index,
    locate,
    predict,
    prepare,
    probe,
    runs,
    score,
    search,
    serve,
    train,
    weights,
)

app = typer.Typer(
    name="mesm",
    help="Find the moments of a video that a sentence describes.\n\n"
    'Search a video file: `mesm locate my.mp4 "a person opens the door"`. '
    "Run the whole pipeline on generated data: `mesm demo`. To train your own model, extract features "
    "(`mesm extract`), train (`mesm train --dataset tacos`), evaluate (`mesm eval`) and predict (`mesm predict`).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("locate")(locate.locate)
app.command("serve")(serve.serve)
app.add_typer(prepare.app, name="prepare")
app.command("count-tokens")(prepare.count_tokens)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("calibrate")(calibrate.calibrate)
app.command("predict")(predict.predict)
app.command("export")(export.export)
app.command("probe")(probe.probe)
app.command("extract")(extract.extract)
app.add_typer(index.app, name="index")
app.command("search")(search.search)
app.add_typer(weights.app, name="weights")
app.add_typer(cache.app, name="cache")
app.command("score")(score.score)
app.command("bench")(bench.bench)
app.add_typer(runs.app, name="runs")
app.add_typer(config.app, name="config")
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)


def _set_help(group: typer.Typer) -> None:
    """Set the help of all commands from their docstrings."""
    for command in group.registered_commands:
        command.help = formats.help_text(command.callback.__doc__)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _set_help(inner.typer_instance)


_set_help(app)


def _show_version(value: bool) -> None:
    if value:
        from mesm_core.version import __version__

        typer.echo(f"mesm {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Parse the options before the command."""
