"""Opens an index for search: finds the text encoder of its vectors and the moment model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from mesm_core.caches import default_notes
from mesm_core.errors import ConfigError, FeatureError
from mesm_core.extraction.cache import default_cache
from mesm_core.extraction.cached import CachedExtraction
from mesm_core.extraction.recipe import CLIP, Recipe
from mesm_core.extraction.weights import weights_of
from mesm_core.inference.locate import Plan, plan_location, zero_shot
from mesm_core.inference.zero_shot_retriever import UNTRAINED, Sentences
from mesm_core.search.index import Index
from mesm_core.search.searcher import MomentModel, Searcher

if TYPE_CHECKING:
    from mesm_core.inference.scoring import Job


@dataclass(frozen=True)
class SearchPlan:
    """An open index and the files that search in it needs, known before anything large is read."""

    index: Index
    plan: Plan

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the model, for the user."""
        checkpoint = self.plan.checkpoint
        return (UNTRAINED,) if checkpoint is None else tuple(checkpoint.warnings)


def plan_search(
    index: Path | str,
    model: Path | str | None = None,
    *,
    weights: Mapping[str, Path] | None = None,
    clip: Path | None = None,
    root: Path | None = None,
) -> SearchPlan:
    """Return the plan for a search; arguments as for ``load_searcher``.

    Raises:
        The same as ``load_searcher``, except for errors in weights.
    """
    found = Index.open(index)
    plan = plan_location(model, weights=weights, clip=clip, root=root)
    if plan.checkpoint is not None:
        _refuse_other_features(found, plan)
    return SearchPlan(found, replace(plan, weights=(CLIP,)))


def load_searcher(
    index: Path | str,
    model: Path | str | None = None,
    *,
    weights: Mapping[str, Path] | None = None,
    clip: Path | None = None,
    root: Path | None = None,
    device: str = "auto",
) -> Searcher:
    """Return a searcher of an index.

    Args:
        index: its folder; model: path of a checkpoint for the second stage, None for zero-shot.
        weights: files by name, ``{"clip-b32": Path("ViT-B-32.pt")}``; default: those that ``mesm weights``
            downloaded, or in the data folder ``root``, by default ./data.
        clip: the text weights of a checkpoint with CLIP text, if they were moved after training.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        DataError: the index is missing or damaged; FeatureError: the weights or the checkpoint do not fit the index;
            CheckpointError: the file is not a checkpoint; TextError: the text encoder cannot be used; DeviceError: the
            device is not available.
    """
    return searcher_of(plan_search(index, model, weights=weights, clip=clip, root=root), device=device)


def searcher_of(planned: SearchPlan, *, device: str = "auto") -> Searcher:
    """Return the searcher of a plan; errors as for ``load_searcher``."""
    plan, index = planned.plan, planned.index
    sentences = _sentences(index, plan, device)
    if plan.checkpoint is None:
        return Searcher(index, sentences)
    from mesm_core.inference.trained import load_trained

    text = plan.clip or weights_of(CLIP, plan.given, root=plan.root)
    retriever = load_trained(plan.checkpoint, text, plan.root, device=device)
    lengths = retriever.lengths
    model = MomentModel(retriever, plan.recipe.backbones, lengths.longest, lengths.median)
    return Searcher(index, sentences, model)


def searcher_of_job(index: Index, job: Job, *, weights: Mapping[str, Path], root: Path | None, device: str) -> Searcher:
    """Return the searcher that evaluates a model on a split, with the features of the dataset in stage two.

    Args:
        weights: files by name, as for ``load_searcher``; root: the data folder.

    Raises:
        FeatureError: the weights are missing or do not fit the index.
    """
    plan = plan_location(None, weights=weights, root=root)
    sentences = _sentences(index, plan, device)
    if job.frames is None:
        return Searcher(index, sentences)
    return Searcher(index, sentences, MomentModel(job.retriever, (), math.inf, math.inf, job.frames))


def _sentences(index: Index, plan: Plan, device: str) -> Sentences:
    """Return the encoder of queries, after a check that its file is that of the index's backbone."""
    archive = weights_of(CLIP, plan.given, root=plan.root)
    assert archive is not None
    if index.weights is not None:
        extraction = CachedExtraction(
            Recipe(backbones=(CLIP,), clip_len=Fraction(1)),
            weights={CLIP: archive},
            device=device,
            precision=None,
            cache=default_cache(),
            notes=default_notes(),
        )
        index.check_weights(extraction.weights_hash(CLIP), where=archive)
    return zero_shot(archive, device).sentences


def _refuse_other_features(index: Index, plan: Plan) -> None:
    """Raise FeatureError if the index does not keep the features that a checkpoint was trained on."""
    kept = {network.name: network for network in index.manifest.networks}
    recipe = plan.recipe
    command = f"mesm index build NEW VIDEOS… {' '.join(f'--backbone {name}' for name in recipe.backbones)}"
    hint = f"Build an index for this model: {command} --clip-len {float(recipe.clip_len):g}"
    missing = [name for name in recipe.backbones if name not in kept]
    if missing:
        raise FeatureError(
            f"{plan.model} was trained on features of {' and '.join(recipe.backbones)}, but {index.path} has those of "
            f"{' and '.join(kept)} only.",
            hint=hint,
        )
    lengths = {video.clip_len for video in index.videos.values()} - {float(recipe.clip_len)}
    if lengths:
        raise ConfigError(
            f"{plan.model} was trained on rows of {float(recipe.clip_len):g} s, but {index.path} has rows of "
            f"{min(lengths):g} s.",
            hint=hint,
        )
    for name, wanted in zip(recipe.backbones, recipe.weights, strict=True):
        found = kept[name].weights
        if wanted is not None and found is not None and wanted != found:
            raise FeatureError(
                f"{plan.model} was trained on features of {name}, weights {wanted[:12]}, but {index.path} was built "
                f"with weights {found[:12]}.",
                hint=hint,
            )
