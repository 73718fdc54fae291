"""Resolve the settings of a run: defaults < preset < file < ``--set``; the source of each value is known."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mesm_core.config.own_videos import derived_settings
from mesm_core.config.paths import anchored
from mesm_core.config.schema import Config
from mesm_core.errors import ConfigError, did_you_mean, listing
from mesm_core.inputs import parse_json, parse_toml, read_text, shown

Tree = dict[str, Any]

DATA_ROOT = Path("data")
TABLES = ("loss.weights",)
"""Settings that are tables with arbitrary keys."""
PRESET = "preset"

# Names in other tools of the field, for did-you-mean messages and official checkpoints.
FIELD_NAMES = {
    "nheads": "model.heads",
    "num_heads": "model.heads",
    "num_queries": "model.slots",
    "share_mlp": "model.share_feedforward",
    "use_txt_pos": "model.text_positions",
    "n_input_proj": "model.projection_layers",
    "num_recfw_layers": "model.frame_word_layers",
    "num_recss_layers": "model.segment_sentence_layers",
    "t2v_layers": "model.aligner_layers",
    "enc_layers": "model.encoder_layers",
    "dec_layers": "model.decoder_layers",
    "v_feat_dim": "model.video_dim",
    "t_feat_dim": "model.text_dim",
    "max_video_l": "dataset.max_frames",
    "max_words_l": "dataset.max_words",
    "n_epoch": "train.epochs",
    "eval_batch_size": "eval.batch_size",
    "max_ts_val": "eval.max_time",
    "stop_score": "eval.select",
    "recss_tau": "loss.tau",
    "use_triplet": "loss.triplet",
    "saliency_margin": "loss.margin",
    "set_cost_span": "loss.cost_span",
    "set_cost_giou": "loss.cost_giou",
    "set_cost_class": "loss.cost_class",
    "loss_span_coef": "loss.span",
    "loss_giou_coef": "loss.giou",
    "loss_label_coef": "loss.label",
    "loss_saliency_coef": "loss.saliency",
    "loss_recfw_coef": "loss.rec_fw",
    "loss_recss_coef": "loss.rec_ss",
    "rec_fw": "model.frame_word",
    "rec_ss": "model.segment_sentence",
}


@dataclass(frozen=True)
class Layer:
    """Settings from one source, with the name of the source that ``mesm config show`` prints.

    ``preset``: the dataset preset that a file is based on, or None.
    """

    source: str
    values: Tree
    preset: str | None = None


def presets_dir() -> Path:
    """Return the folder of the TOML presets: in the installed package, or else in the source tree."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "presets"
    return installed if installed.is_dir() else package.parent / "configs"


def preset_names() -> list[str]:
    """Return the names of the presets, sorted."""
    return sorted(path.stem for path in presets_dir().glob("*.toml"))


def preset(name: str) -> Layer:
    """Return the preset with the given name.

    Raises:
        ConfigError: there is none; the message suggests the nearest name and lists all.
    """
    if name not in preset_names():
        raise ConfigError(
            f"No dataset preset is called '{name}'.{did_you_mean(name, preset_names())}",
            hint=f"Known: {listing(preset_names(), limit=20)}.",
        )
    return Layer(f"preset {name}", _read_toml(presets_dir() / f"{name}.toml"))


def file_layer(path: Path) -> Layer:
    """Return the settings of a TOML file, or of a run's ``config.json``.

    Paths in a TOML file are relative to the file. Paths in a ``config.json`` are absolute, or relative to the data
    folder.

    Raises:
        ConfigError: the file is missing or is not TOML / JSON.
    """
    if not path.is_file():
        raise ConfigError(f"No config file at {path}.", hint="Give a .toml file, or a run's config.json.")
    if path.suffix != ".json":
        values = _read_toml(path)
        name = values.pop(PRESET, None)
        if name is not None and not isinstance(name, str):
            raise ConfigError(f"{path}: {PRESET} = {shown(name)} is not the name of a dataset preset.")
        return Layer(str(path), anchored(values, path.parent), name)
    text = read_text(path, error=ConfigError)
    values = parse_json(text, f"{path} is not readable JSON", error=ConfigError, surrogates=True)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}, not a table of settings.")
    return Layer(str(path), values)


def set_layer(assignments: Sequence[str]) -> Layer:
    """Return the settings of ``a.b=value`` assignments. Values are TOML; a bare word is a string.

    Paths are relative to the working folder.

    >>> set_layer(["train.epochs=3", "text.tagger=nltk"]).values
    {'train': {'epochs': 3}, 'text': {'tagger': 'nltk'}}

    Raises:
        ConfigError: an assignment is not ``key=value``.
    """
    values: Tree = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise ConfigError(
                f"--set takes section.key=value, not '{assignment}'.", hint="Example: --set train.lr=1e-4"
            )
        node = values
        for part in parts[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ConfigError(f"--set {assignment}: '{part}' was given a value by an earlier --set.")
        node[parts[-1]] = _value(text.strip())
    return Layer("--set", anchored(values, Path.cwd()))


def load_config(
    dataset: str | None = None,
    *,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    options: Mapping[str, Any] = {},
) -> Config:
    """Resolve a config from a preset, a file, ``section.key=value`` overrides and options, in rising precedence.

    >>> load_config("tacos", overrides=["train.epochs=2"]).train.epochs
    2
    """
    return resolve(layers(dataset, file=file, overrides=overrides, options=options))


def layers(
    dataset: str | None, *, file: Path | None, overrides: Sequence[str], options: Mapping[str, Any] = {}
) -> list[Layer]:
    """Return the layers of a run in rising precedence.

    Settings derived from a folder of videos and its backbones come directly above the preset, so that a file or
    ``--set`` can change them.

    Args:
        options: settings, by section, from dedicated options of the command line.

    Raises:
        ConfigError: a layer cannot be read, or the file is based on another preset than ``dataset``.
    """
    given = None if file is None else file_layer(file)
    own = None if given is None else given.preset
    if dataset and own and own != dataset:
        raise ConfigError(
            f"{file} changes the preset '{own}', but --dataset says '{dataset}'.", hint="Leave out one of the two."
        )
    name = dataset or own
    stack = [preset(name)] if name else []
    if given is not None:
        stack.append(given)
    if overrides:
        stack.append(set_layer(overrides))
    if options and stack:
        stack.append(Layer("command line", dict(options)))
    merged: Tree = {}
    for layer in stack:
        merged = _merge(merged, layer.values)
    derived = derived_settings(merged)
    if derived:
        stack.insert(1 if name else 0, Layer("dataset.videos", derived))
    return stack


def resolve(stack: Sequence[Layer]) -> Config:
    """Merge the layers into a config.

    Raises:
        ConfigError: a key is unknown (with a did-you-mean) or missing, or a value is invalid; the message names the
            layer.
    """
    for layer in stack:
        _refuse_unknown(layer)
    merged: Tree = {}
    for layer in stack:
        merged = _merge(merged, layer.values)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error, stack)) from error


def sources(stack: Sequence[Layer]) -> dict[str, str]:
    """Return, for every leaf key of the config, the name of the layer that sets its value."""
    origin = dict.fromkeys((key for key, _ in flatten(resolve(stack).model_dump())), "default")
    for layer in stack:
        origin.update(dict.fromkeys((key for key, _ in flatten(layer.values)), layer.source))
    return origin


def over_preset(config: Config) -> tuple[str, Tree]:
    """Return the preset nearest to a config, and the settings in which the config differs from it.

    >>> over_preset(load_config("tacos", overrides=["train.epochs=2"]))
    ('tacos', {'train': {'epochs': 2}})
    """
    wanted = dict(flatten(config.model_dump(mode="json")))
    differing: dict[str, list[str]] = {}
    for name in preset_names():
        values = dict(flatten(load_config(name).model_dump(mode="json")))
        if values["dataset.name"] == config.dataset.name:
            differing[name] = [key for key, value in wanted.items() if values.get(key) != value]
    nearest = min(differing, key=lambda name: len(differing[name]))
    changes: Tree = {}
    for key in differing[nearest]:
        *sections, leaf = key.split(".")
        node = changes
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = wanted[key]
    return nearest, changes


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``("a.b", value)`` for every leaf; an empty table inside a section counts as a leaf.

    >>> list(flatten({"a": {"b": 1}, "c": 2}))
    [('a.b', 1), ('c', 2)]
    """
    for key, value in tree.items():
        if isinstance(value, Mapping) and (value or not prefix):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def known_keys(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Return every leaf key of the schema, in dotted form."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += known_keys(inner, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def _read_toml(path: Path) -> Tree:
    return parse_toml(read_text(path, error=ConfigError), path, error=ConfigError)


def _value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}", "the value", error=ConfigError)["value"]
    except ConfigError:
        return text


def _merge(below: Tree, above: Tree) -> Tree:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return merged


def _refuse_unknown(layer: Layer) -> None:
    known = known_keys()
    for key, _ in flatten(layer.values):
        if key in known or key.rpartition(".")[0] in TABLES:
            continue
        leaf = key.rsplit(".", 1)[-1].lower()
        if leaf in FIELD_NAMES:
            guess = f" Did you mean '{FIELD_NAMES[leaf]}'?"
        else:
            guess = did_you_mean(key, known) or _by_leaf(leaf, known)
        raise ConfigError(
            f"Unknown setting '{key}' ({layer.source}).{guess}",
            hint="`mesm config show --dataset NAME` lists every setting.",
        )


def _by_leaf(leaf: str, known: Sequence[str]) -> str:
    leaves = {key.rsplit(".", 1)[-1]: key for key in known}
    near = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.6)
    return f" Did you mean '{leaves[near[0]]}'?" if near else ""


def _explain(error: ValidationError, stack: Sequence[Layer]) -> str:
    lines = []
    if not any("dataset" in layer.values for layer in stack):
        return (
            f"No dataset was chosen: give --dataset NAME ({listing(preset_names())}), or a --config file that has it."
        )
    for issue in error.errors():
        key = ".".join(str(part) for part in issue["loc"] if not isinstance(part, int))
        if issue["type"] == "missing":
            lines.append(f"Setting '{key}' is missing: give --dataset NAME, or a --config file that has it.")
            continue
        where = next((layer.source for layer in reversed(stack) if key in dict(flatten(layer.values))), None)
        message = issue["msg"].removeprefix("Value error, ")
        value = issue["input"]
        guess = ""
        if issue["type"] == "literal_error" and isinstance(value, str):
            options = [word.strip("' ") for word in str(issue["ctx"]["expected"]).replace(" or ", ",").split(",")]
            guess = did_you_mean(value, options)
        given = "" if isinstance(value, dict) else f" = {shown(value)}"
        lines.append(f"Setting '{key}'{given}{f' ({where})' if where else ''}: {message}.{guess}")
    return "\n".join(lines)
