"""``mesm prepare glove`` and ``mesm prepare clip-text``: files of the text encoders."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mesm_cli import options, render


class Activation(StrEnum):
    """Activations of CLIP's text transformers."""

    QUICK_GELU = "quick_gelu"
    GELU = "gelu"


def glove(
    source: Annotated[
        Path, typer.Argument(metavar="GLOVE", help="glove.*.300d.txt (plain, .gz or .zip), or a glove.pkl to convert.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Vocabulary file to write (.h5).")],
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    annotations: options.AnnotationsDir = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write the words of a dataset with their counts and GloVe vectors to one file, like the published glove.pkl.

    Only presets with the text encoder glove-pkl (charades-vgg-glove) read such a file. Use this command if you have no
    glove.pkl, or to convert a glove.pkl to a file that can be read without running code. Other presets (tacos, your own
    videos) read GloVe's text file and do not need this command.

    Example:

      mesm prepare glove glove.6B.300d.txt glove.h5 --dataset charades-vgg-glove
    """
    from mesm_core.config.load import load_config
    from mesm_core.data.count_dataset import dataset_files
    from mesm_core.data.splits import counted_splits
    from mesm_core.data.vocabularies import dataset_vocabulary, vocabulary_files
    from mesm_core.errors import OutputError, count
    from mesm_core.places import is_stream, refuse_existing, refuse_inputs
    from mesm_core.text.glove import find_glove
    from mesm_core.text.vocabulary import read_vocabulary, write_vocabulary

    if out.suffix not in {".h5", ".hdf5"} and not is_stream(out):
        raise OutputError(f"{out} should end in .h5: the vocabulary is written as HDF5.")
    refuse_existing(out, overwrite=overwrite)
    refuse_inputs([out], [source, config])
    if source.suffix == ".pkl":
        vocabulary = read_vocabulary(source)
    else:
        settings = load_config(dataset, file=config, overrides=set_ or [])
        folder = annotations or options.data_root(data_dir) / settings.dataset.annotations
        splits = counted_splits(settings.dataset)
        inputs = vocabulary_files(settings.dataset.name, folder, splits)
        refuse_inputs([out], [*inputs, *dataset_files(settings.dataset, folder)])
        vocabulary = dataset_vocabulary(
            settings.dataset.name, folder, find_glove(source), dim=settings.model.text_dim, splits=splits
        )
    write_vocabulary(out, vocabulary, overwrite=overwrite)
    if json_:
        render.data({"out": str(out), "words": len(vocabulary.words), "dim": vocabulary.vectors.shape[1]})
    else:
        render.say(f"{out}: {count(len(vocabulary.words), 'word')}, {vocabulary.vectors.shape[1]}-d")


def clip_text(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="CLIP weights: OpenAI's ViT-B-32.pt, open_clip's, Hugging Face's, or the paper's .pth.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File of text weights to write (.safetensors).")],
    heads: Annotated[
        int | None,
        typer.Option("--heads", min=1, help="Number of attention heads. Default: width / 64.", show_default=False),
    ] = None,
    activation: Annotated[
        Activation,
        typer.Option("--activation", help="quick_gelu for OpenAI's weights, gelu for most weights of open_clip."),
    ] = Activation.QUICK_GELU,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Extract the text encoder of a CLIP model as safetensors. No code from the file is run.

    The text projection is included if SOURCE has one. Zero-shot needs it, training does not.

    Example:

      mesm prepare clip-text ViT-B-32.pt data/clip_text_encoder.safetensors
    """
    from mesm_core.errors import count
    from mesm_core.places import refuse_existing, refuse_inputs
    from mesm_core.text.clip import ClipTextTransformer
    from mesm_core.text.clip_weights import PROJECTION, read_clip_weights, write_clip_text

    refuse_existing(out, overwrite=overwrite)
    refuse_inputs([out], [source])
    weights, _ = read_clip_weights(source)
    model = ClipTextTransformer.from_weights(weights, heads=heads, activation=str(activation))
    write_clip_text(out, weights, heads=heads, activation=str(activation), overwrite=overwrite)
    layers, size = model.layers, sum(value.nbytes for value in weights.values()) / 1e6
    projection = weights.get(PROJECTION)
    joint = None if projection is None else projection.shape[-1]
    if json_:
        about = {"out": str(out), "width": model.width, "layers": layers, "tensors": len(weights)}
        render.data(about | {"projection": joint})
        return
    render.say(f"{out}: {count(layers, 'layer')}, width {model.width}, {size:.1f} MB")
    if joint is None:
        render.note(f"{source} has no text projection. That is sufficient for training, but not for zero-shot.")
