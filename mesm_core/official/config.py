"""The published implementation's flags as our settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesm_core.build import ENDPOINT_CHANNELS
from mesm_core.config.load import FIELD_NAMES, Layer, preset, preset_names, resolve
from mesm_core.config.schema import Config, LossConfig, ModelConfig
from mesm_core.errors import ConfigError, listing

# Flags that mean a setting of another name, besides those that users of other tools will type.
_FLAGS = FIELD_NAMES | {
    "clip_len": "dataset.clip_len",
    "max_windows": "dataset.max_windows",
    "max_gather_size": "dataset.max_gather_size",
    "vocab_size": "text.vocab_size",
    "batch_size": "train.batch_size",
    "lr": "train.lr",
    "lr_drop": "train.lr_drop",
    "gamma": "train.gamma",
    "weight_decay": "train.weight_decay",
    "grad_clip": "train.grad_clip",
    "seed": "train.seed",
    "aux_loss": "loss.aux",
}
_ALIASES = ("num_heads",)
_SPELLING = {"share_mlp": "share_MLP"}
# What the published code reads besides, and we have no setting for because it is always so.
_FIXED = {
    "use_tef": True,
    "contra_samples": 2,
    "normalize_video": True,
    "normalize_txt": True,
    "pre_norm": False,
    "position_embedding": "sine",
    "span_loss_type": "l1",
    "num_workers": 0,
    "pin_memory": False,
    "ctx_mode": None,
    "sort_results": True,
    "nms_thd": -1,
    "max_before_nms": 10,
    "max_after_nms": 10,
    "exp_id": "mesm",
    "is_inference": False,
}
_SCORES = {"miou": "mIoU", "map": "mAP"}


def sections(flags: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the flags that we have settings for, by section.

    >>> sections({"nheads": 4, "recss_tau": 0.5, "stop_score": "miou", "exp_id": "x"})
    {'model': {'heads': 4}, 'loss': {'tau': 0.5}, 'eval': {'select': 'mIoU'}}
    """
    result: dict[str, dict[str, Any]] = {}
    for flag, value in flags.items():
        key = _FLAGS.get(flag.lower()) or _same_name(flag)
        if key is not None:
            section, _, name = key.partition(".")
            known = _SCORES.get(str(value).lower(), value) if key == "eval.select" else value
            result.setdefault(section, {})[name] = known
    return result


def config_from_flags(flags: Mapping[str, Any], *, source: str, video_dim: int | None = None) -> Config:
    """Return the settings of a published run: the dataset's preset, changed by its flags.

    Args:
        source: where the flags come from, for messages.
        video_dim: width of the features without the endpoint channels; default: the flag ``v_feat_dim``.

    Raises:
        ConfigError: the dataset is unknown, or a value does not fit.
    """
    values = sections(flags)
    encoder = _encoder(flags)
    values.setdefault("text", {})["encoder"] = encoder
    if video_dim is not None:
        values.setdefault("model", {})["video_dim"] = video_dim
    return resolve([preset(_preset_name(flags, encoder, source)), Layer(source, values)])


def flags_of(config: Config, paths: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings as the published implementation's flags, complete enough to run it.

    Args:
        paths: where the data lay (``annotations``, ``features``, ``text``); empty where that is not known.
    """
    values = config.model_dump(mode="json")
    known = {flag: key for flag, key in _FLAGS.items() if flag not in _ALIASES}
    flags = {_SPELLING.get(flag, flag): _at(values, key) for flag, key in known.items()}
    for section, schema in (("model", ModelConfig), ("loss", LossConfig)):
        same = {
            name: values[section][name] for name in schema.model_fields if f"{section}.{name}" not in known.values()
        }
        flags |= same
    flags["stop_score"] = flags["stop_score"].lower()
    flags["v_feat_dim"] += ENDPOINT_CHANNELS
    clip = config.text.encoder == "clip"
    return flags | {
        "dataset_name": "charades" if config.dataset.name.startswith("charades-vgg") else config.dataset.name,
        "tokenizer_type": "CLIP" if clip else "GloVeNLTK",
        "load_vocab_pkl": config.text.encoder == "glove-pkl",
        "ann_path": paths.get("annotations", "./annotations"),
        "feat_files": list(paths.get("features", ["./features.hdf5"])),
        "text_model_path": paths.get("text", "./pretrained_models"),
        **_FIXED,
    }


def _at(values: Mapping[str, Any], key: str) -> Any:
    section, _, name = key.partition(".")
    return values[section][name]


def _encoder(flags: Mapping[str, Any]) -> str:
    if "clip" in str(flags.get("tokenizer_type", "")).lower():
        return "clip"
    return "glove-pkl" if flags.get("load_vocab_pkl") else "glove"


def _preset_name(flags: Mapping[str, Any], encoder: str, source: str) -> str:
    name = str(flags.get("dataset_name", "")).lower().replace("_", "-")
    if name == "charades" and encoder != "clip":
        return "charades-vgg-glove"
    if name not in preset_names():
        raise ConfigError(
            f"{source}: unknown dataset_name {flags.get('dataset_name')!r}.", hint=f"Known: {listing(preset_names())}."
        )
    return name


def _same_name(flag: str) -> str | None:
    for section, schema in (("model", ModelConfig), ("loss", LossConfig)):
        if flag in schema.model_fields:
            return f"{section}.{flag}"
    return None
