"""The Typer app: one line a subcommand. Imports no torch, so that help is instant; ``mesm_cli.entry`` runs it."""

from __future__ import annotations

from mesm_cli.entry import main

if __name__ == "__main__":
    main()  # here, so that it sees to Ctrl-C during the imports below, too; it does not return

from typing import Annotated

import typer

from mesm_cli import options
from mesm_cli.commands import (
    bench,
    cache,
    config,
    demo,
    doctor,
    evaluate,
    export,
    extract,
    locate,
    predict,
    prepare,
    probe,
    runs,
    score,
    train,
    weights,
)

app = typer.Typer(
    name="mesm",
    help="Find the seconds of a video in which a sentence happens.\n\n"
    'Ask about a video of yours: `mesm locate my.mp4 "a person opens the door"`. '
    "`mesm demo` shows the whole pipeline on invented data. For a model of your own prepare features "
    "(`mesm extract`), train (`mesm train --dataset tacos`), evaluate (`mesm eval`) and ask (`mesm predict`).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("locate")(locate.locate)
app.add_typer(prepare.app, name="prepare")
app.command("count-tokens")(prepare.count_tokens)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("export")(export.export)
app.command("probe")(probe.probe)
app.command("extract")(extract.extract)
app.add_typer(weights.app, name="weights")
app.add_typer(cache.app, name="cache")
app.command("score")(score.score)
app.command("bench")(bench.bench)
app.add_typer(runs.app, name="runs")
app.add_typer(config.app, name="config")
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)


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
    """Options before the subcommand."""
