"""The public API: names and parameters. A change here is a change for users, and belongs in the changelog."""

from __future__ import annotations

import inspect
import subprocess
import sys

import mesm_core

SIGNATURES = {
    "Answer": "query windows saliency seen unknown_words all_words_unknown warnings window confidence confidences "
    "rejected",
    "Answer.as_json": "self top",
    "Answer.confident": "self least",
    "Answer.prediction": "self qid vid",
    "Answer.suppressed": "self nms",
    "VideoQueries": "features queries duration",
    "Located": "video duration answers warnings cached",
    "Located.confident": "self least",
    "Locator": "retriever extraction plan * warnings",
    "Locator.answer": "self video queries * nms window independent",
    "Locator.from_plan": "plan * device precision cache",
    "Locator.load": "model * weights clip clip_len root device precision cache",
    "Locator.locate_many": "self asked * nms window independent progress",
    "Moment": "start end score confidence",
    "Moment.as_json": "self",
    "MomentRetriever": "* config model text device lengths calibration",
    "MomentRetriever.from_checkpoint": "checkpoint * config device text paths",
    "MomentRetriever.load": "path * device config_file overrides",
    "MomentRetriever.locate": "self features queries * duration independent nms window",
    "MomentRetriever.locate_many": "self asked * nms window",
    "Prediction": "qid query vid windows saliency confidence",
    "Prediction.as_json": "self",
    "Query": "qid vid sentence duration windows source highlights repaired",
    "Retriever.locate": "self features queries * duration independent nms window",
    "Retriever.locate_many": "self asked * nms window",
    "ZeroShotRetriever": "sentences",
    "ZeroShotRetriever.load": "clip * device",
    "ZeroShotRetriever.locate": "self features queries * duration independent nms window",
    "ZeroShotRetriever.locate_many": "self asked * nms window",
    "load_config": "dataset * file overrides options",
    "locate": "video queries model * weights clip clip_len device precision nms window",
}
"""Public callables and their parameters, without annotations; ``*`` starts the keyword-only ones."""


def test_the_public_names_are_pinned() -> None:
    classes = {name.partition(".")[0] for name in SIGNATURES}
    assert set(mesm_core.__all__) == classes | {"__version__", "Config", "MesmError"}
    assert all(getattr(mesm_core, name) is not None for name in mesm_core.__all__)
    assert sorted(mesm_core.__all__) == dir(mesm_core)


def test_public_parameters_are_pinned() -> None:
    assert {name: _parameters(name) for name in SIGNATURES} == SIGNATURES


def test_public_methods_are_pinned() -> None:
    for name in mesm_core.__all__:
        value = getattr(mesm_core, name)
        if inspect.isclass(value) and name not in {"Config", "MesmError"}:
            methods = {
                f"{name}.{key}" for key in vars(value) if not key.startswith("_") and callable(getattr(value, key))
            }
            assert methods == {key for key in SIGNATURES if key.startswith(f"{name}.")}, name


def test_the_public_names_are_loaded_on_first_use() -> None:
    code = "import sys, mesm_core; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules); mesm_core.Config"
    subprocess.run([sys.executable, "-c", code], check=True)


def _parameters(name: str) -> str:
    value: object = mesm_core
    for part in name.split("."):
        value = getattr(value, part)
    parameters = inspect.signature(value).parameters.values()  # type: ignore[arg-type]
    words: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        words.append(parameter.name)
    return " ".join(words)
