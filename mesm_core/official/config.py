"""Conversion between flags of the published implementation and our settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mesm_core.config.load import FIELD_NAMES, Layer, preset, preset_names, resolve
from mesm_core.config.schema import Config, LossConfig, ModelConfig
from mesm_core.errors import ConfigError, listing

# Flags for settings of another name, in addition to FIELD_NAMES.
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
    "max_es_cnt": "train.patience",
    "eval_epoch_interval": "train.eval_every",
    "eval_untrained": "train.eval_untrained",
}
_ALIASES = ("num_heads",)
_SPELLING = {"share_mlp": "share_MLP"}
# Flags of the computation of which one value is supported: the spellings of that value, and its meaning.
_SUPPORTED: dict[str, tuple[tuple[object, ...], str]] = {
    "use_tef": ((True,), "the two temporal endpoint channels are always appended"),
    "normalize_video": ((True,), "frames are always scaled to length 1"),
    "normalize_txt": ((True,), "words and sentences are always scaled to length 1"),
    "pre_norm": ((False,), "layers normalise after the residual"),
    "position_embedding": (("sine", "v2"), "positions of frames are sines"),
    "span_loss_type": (("l1",), "spans are regressed, with the L1 loss"),
    "tokenizer_type": (("CLIP", "GloVeNLTK"), "sentences are split as for CLIP or by NLTK"),
}
# Flags that only affect reports: the value that our reports correspond to, and what happens with other values.
_REPORT: dict[str, tuple[object, str]] = {
    "sort_results": (True, "moments are always sorted by score, so R1 is that of the best-scored one"),
    "nms_thd": (-1, "use --nms; the main results of the published code are without NMS"),
    "max_before_nms": (10, "NMS here considers all moments of a query"),
    "max_after_nms": (10, "NMS here keeps all moments that it does not suppress"),
    "ctx_mode": (None, "it only names the folder of results"),
}
_CONTRA_SAMPLES = 2
_ADDED = ("loss.absent", "loss.weights")
"""Settings of losses that the published code does not have."""
# Flags of paths, of the environment of a run, and of logging.
_HARMLESS = frozenset({
    "config_file", "dataset_name", "ann_path", "feat_files", "bpe_path", "text_model_path", "load_vocab_pkl",
    "num_workers", "pin_memory", "device", "exp_id", "debug",
    "resume", "resume_all", "start_epoch", "save_interval",
    "result_root", "result_dir", "results_dir", "ckpt_filepath", "tensorboard_log_dir",
    "train_log_filepath", "eval_log_filepath", "train_log_txt_formatter", "eval_log_txt_formatter",
    "is_inference", "inference_id", "inference_result_dir", "trained_result_dir", "eval_split_name",
    "span_los_type",
})  # fmt: skip
# Further flags that the published code needs to run one of our checkpoints.
_FIXED = {
    "use_tef": True,
    "normalize_video": True,
    "normalize_txt": True,
    "pre_norm": False,
    "position_embedding": "sine",
    "span_loss_type": "l1",
    "contra_samples": _CONTRA_SAMPLES,
    **{flag: value for flag, (value, _) in _REPORT.items()},
    "num_workers": 0,
    "pin_memory": False,
    "exp_id": "mesm",
    "is_inference": False,
}
_SCORES = {"miou": "mIoU", "map": "mAP"}


def sections(flags: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings that flags correspond to, by section.

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
    """Return the settings of a published run: the preset of its dataset, changed by its flags.

    ``flag_warnings`` returns the flags that have no effect.

    Args:
        source: source of the flags, for messages.
        video_dim: width of the features without the endpoint channels. Default: the flag ``v_feat_dim``, which does
            not count these channels in ``opt.json`` and in config files.

    Raises:
        ConfigError: the dataset is unknown, a value is invalid, or the flags require a computation that is not
            supported.
    """
    preset_name, encoder = _preset_and_encoder(flags, source)
    values = sections(flags)
    values.setdefault("text", {})["encoder"] = encoder
    if video_dim is not None:
        values.setdefault("model", {})["video_dim"] = video_dim
    if flags.get("eval_batch_size") == -1 and "batch_size" in flags:  # means the same value in the published code
        values["eval"]["batch_size"] = flags["batch_size"]
    config = resolve([preset(preset_name), Layer(source, values)])
    _refuse_unsupported(flags, source, triplet=config.loss.triplet)
    return config


def flag_warnings(flags: Mapping[str, Any], *, source: str) -> tuple[str, ...]:
    """Return a message for each flag that has no effect here. None of them changes the model's output.

    Args:
        source: source of the flags, for messages.

    >>> flag_warnings({"dataset_name": "tacos", "gwork": 1}, source="opt.json")
    ('opt.json: unknown flags, which have no effect here: gwork.',)
    """
    warnings = [
        f"{source}: {flag} = {_shown(flags[flag])} has no effect: {instead}."
        for flag, (value, instead) in _REPORT.items()
        if flag in flags and flags[flag] != value
    ]
    samples = flags.get("contra_samples", _CONTRA_SAMPLES)
    if samples != _CONTRA_SAMPLES:
        warnings.append(
            f"{source}: contra_samples = {_shown(samples)} has no effect, since the triplet loss is off; "
            f"it would be {_CONTRA_SAMPLES} here."
        )
    known = _FLAGS.keys() | _SUPPORTED.keys() | _REPORT.keys() | _HARMLESS | {"contra_samples"}
    unknown = [flag for flag in flags if flag.lower() not in known and _same_name(flag) is None]
    if unknown:
        warnings.append(f"{source}: unknown flags, which have no effect here: {listing(unknown, limit=20)}.")
    return tuple(warnings)


def flags_of(config: Config, paths: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as flags of the published implementation, complete enough to run it.

    ``v_feat_dim`` is without the two endpoint channels, as in the published ``opt.json``.

    Args:
        paths: paths of the data (``annotations``, ``features``, ``text``); empty if unknown.
    """
    values = config.model_dump(mode="json")
    known = {flag: key for flag, key in _FLAGS.items() if flag not in _ALIASES}
    flags = {_SPELLING.get(flag, flag): _at(values, key) for flag, key in known.items()}
    for section, schema in (("model", ModelConfig), ("loss", LossConfig)):
        # The published code has a single forward pass and a fixed set of losses.
        elsewhere = {*known.values(), "model.fast", *_ADDED}
        same = {name: values[section][name] for name in schema.model_fields if f"{section}.{name}" not in elsewhere}
        flags |= same
    flags["stop_score"] = flags["stop_score"].lower()
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


def _refuse_unsupported(flags: Mapping[str, Any], source: str, *, triplet: bool) -> None:
    """Raise ConfigError, listing every flag that requires a computation that is not supported."""
    refused = [
        f"  {flag} = {_shown(flags[flag])}: here {instead} ({flag} = {_shown(values[0])})"
        for flag, (values, instead) in _SUPPORTED.items()
        if flag in flags and flags[flag] not in values
    ]
    samples = flags.get("contra_samples", _CONTRA_SAMPLES)
    if triplet and samples != _CONTRA_SAMPLES:
        refused.append(
            f"  contra_samples = {_shown(samples)}: here the triplet loss takes {_CONTRA_SAMPLES} pairs of frames"
            f" (contra_samples = {_CONTRA_SAMPLES})"
        )
    if refused:
        raise ConfigError(
            f"{source} has flags that mesm does not support:\n" + "\n".join(refused),
            hint="Run this model with the published code, or train one with the supported values.",
        )


def _preset_and_encoder(flags: Mapping[str, Any], source: str) -> tuple[str, str]:
    """Return the names of preset and text encoder. Without ``tokenizer_type`` the encoder is the preset's."""
    given = flags.get("dataset_name")
    name = str(given or "").lower().replace("_", "-")
    tokenizer = str(flags.get("tokenizer_type") or "").lower()
    words = "glove-pkl" if flags.get("load_vocab_pkl") else "glove"
    if name == "charades" and (tokenizer or flags.get("load_vocab_pkl")) and "clip" not in tokenizer:
        return "charades-vgg-glove", words
    if name == "tacos" and "clip" in tokenizer and flags.get("clip_len", -1) != -1:
        # C3D frames, the other features of TACoS, are spread over the duration (clip_len -1).
        return "tacos-clip-slowfast", "clip"
    if given is None:
        raise ConfigError(
            f"{source} has no dataset_name.",
            hint="Is it a config for evaluation? The opt.json in its trained_result_dir has the settings.",
        )
    if name not in preset_names():
        raise ConfigError(f"{source}: unknown dataset_name {given!r}.", hint=f"Known: {listing(preset_names())}.")
    if not tokenizer:
        return name, words if flags.get("load_vocab_pkl") else str(preset(name).values["text"]["encoder"])
    return name, "clip" if "clip" in tokenizer else words


def _shown(value: object) -> str:
    """Return the value of a flag as JSON if possible, else its ``repr``."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)


def _same_name(flag: str) -> str | None:
    for section, schema in (("model", ModelConfig), ("loss", LossConfig)):
        if flag in schema.model_fields and f"{section}.{flag}" not in _ADDED:
            return f"{section}.{flag}"
    return None
