"""A worked example (tests/golden/data/model/*.npz) as our model, inputs, targets and expectations."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from mesm_core.arrays import normalise
from mesm_core.build import ENDPOINT_CHANNELS, build_criterion, build_model
from mesm_core.config.schema import LossConfig, ModelConfig
from mesm_core.data.collate import frame_places, group_context, moment_overlap, sentence_places
from mesm_core.losses.criterion import Criterion
from mesm_core.model.mesm import Mesm
from mesm_core.official.config import sections
from mesm_core.official.names import from_official, rename
from mesm_core.text.clip import ClipTextTransformer
from mesm_core.text.encoder import text_features
from mesm_core.types import Inputs, ModelOutput, Targets

Values = TypeVar("Values", Inputs, Targets)

# The examples' text transformers are too narrow for CLIP's 64 channels a head (tests/golden/data/README.md).
CLIP_FIXTURE_HEADS = 2
OUTPUT_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
# Gradients are sums in float32: what cancels leaves rounding noise in proportion to the largest one. An array
# smaller than this share of it is therefore held to the share's tolerance (1e-8 of the largest gradient).
SMALL_GRADIENT = 1e-4


@dataclass(frozen=True)
class Errors:
    """Largest errors relative to each array's largest magnitude, and whether the matching is the same."""

    outputs: float
    losses: float
    gradients: float
    matching: bool

    @property
    def within(self) -> bool:
        """True where every tolerance of tests/golden/data/README.md holds."""
        small = max(self.outputs, self.losses) <= OUTPUT_TOLERANCE and self.gradients <= GRADIENT_TOLERANCE
        return small and self.matching


class Fixture:
    """One ``.npz``: weights, inputs, and what the published code makes of them."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            self.arrays: dict[str, np.ndarray] = {name: arrays[name] for name in arrays.files}
        self.flags: dict[str, Any] = json.loads(str(self.arrays["config"]))
        settings = sections(self.flags)
        video_dim = settings["model"]["video_dim"] - ENDPOINT_CHANNELS
        self.model_config = ModelConfig(**settings["model"] | {"video_dim": video_dim})
        self.loss_config = LossConfig(**settings["loss"])
        self.inputs = self._inputs()
        self.targets = self._targets()

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays under ``prefix/`` by the rest of their name."""
        return {k.removeprefix(prefix + "/"): v for k, v in self.arrays.items() if k.startswith(prefix + "/")}

    def model(self) -> Mesm:
        """Return our model with the example's weights, in evaluation mode."""
        extra = 3 if self.flags["tokenizer_type"] == "CLIP" else 1
        model = build_model(
            self.model_config, classes=self.flags["vocab_size"] + extra, max_words=self.flags["max_words_l"]
        )
        weights = rename(self.group("state"), keep=model.state_dict())
        model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        return model.eval()

    def criterion(self) -> Criterion:
        """Return our losses with the example's settings."""
        return build_criterion(self.loss_config, self.model_config)

    def _text(self) -> tuple[np.ndarray, np.ndarray]:
        words, mask = self.arrays["in/words_id"], self.arrays.get("in/words_mask")
        if mask is None:
            mask = words.sum(axis=-1) != 0
            return normalise(words) * mask[..., None], mask
        if self.flags["tokenizer_type"] == "CLIP":
            raw = self._clip(words)
            mask = mask[:, : self.flags["max_words_l"]]
        else:
            raw = self.arrays["state/text_encoder.emb.weight"][words]
        features = np.zeros((*mask.shape, self.flags["t_feat_dim"]), np.float32)
        for query, valid in enumerate(mask):
            encoded = text_features(raw[query, : mask.shape[1]][valid])
            features[query, : len(encoded.words)] = encoded.words
        return features, mask

    def _clip(self, ids: np.ndarray) -> np.ndarray:
        prefix = "text_encoder."
        weights = {
            name.removeprefix(prefix): torch.from_numpy(value)
            for name, value in self.group("state").items()
            if name.startswith(prefix)
        }
        encoder = ClipTextTransformer.from_weights(weights, heads=CLIP_FIXTURE_HEADS)
        return encoder(torch.from_numpy(ids)).numpy()

    def _inputs(self) -> Inputs:
        words, mask = self._text()
        video_mask = self.arrays["in/video_mask"]
        index = np.arange(len(video_mask))
        context = frame_places(video_mask, index) | sentence_places(index, len(index))
        if self.flags["dataset_name"] == "qvhighlights":
            sizes = self.arrays["in/num_clips"]
            rows = np.split(np.arange(len(video_mask)), np.cumsum(sizes)[:-1])
            context |= group_context(rows, video_mask, sizes)
        return Inputs(
            video=torch.from_numpy(self.arrays["in/video_feat"]),
            video_mask=torch.from_numpy(video_mask),
            video_index=torch.from_numpy(index),
            words=torch.from_numpy(words),
            words_mask=torch.from_numpy(mask),
            **context,
        )

    def _targets(self) -> Targets:
        given = {name: torch.from_numpy(value) for name, value in self.group("in").items()}
        queries = len(given["video_mask"])
        windows = given.get("num_windows", torch.ones(queries, dtype=torch.int64))
        spans_mask = torch.arange(int(windows.max()))[None] < windows[:, None]
        spans = torch.full((*spans_mask.shape, 2), 0.5)
        spans[spans_mask] = given["norm_span"]
        clip_mask = given["clip_mask"]
        frames = clip_mask.int().argsort(dim=1, descending=True, stable=True)[:, : int(clip_mask.sum(1).max())]
        masked = given.get("masked_words", torch.zeros_like(given["unknown_mask"]))
        group = torch.repeat_interleave(given["num_clips"])
        return Targets(
            spans=spans,
            spans_mask=spans_mask,
            group=group,
            overlap=torch.from_numpy(moment_overlap(spans.numpy(), spans_mask.numpy(), group.numpy())),
            moment_frames=frames,
            moment_mask=clip_mask.gather(1, frames),
            saliency=given.get("saliency_label", clip_mask).float(),
            positive_frames=given["pos_idx"],
            negative_frames=given["neg_idx"],
            triplet_mask=torch.ones(queries, dtype=torch.bool),
            negative_query=given["negative_index"],
            masked_words=masked,
            unknown_words=given["unknown_mask"],
            word_labels=given["words_label"],
        )


@dataclass(frozen=True)
class Verdict:
    """How far we are from a worked example in float32, and where that is over a tolerance also in float64.

    Rounding can flip the sign of a PReLU's input that is all but 0, and with it a gradient; in float64 it does not.
    """

    single: Errors
    double: Errors | None = None

    @property
    def held(self) -> str | None:
        """The precision in which the comparison held: float32, else float64, else None."""
        if self.single.within:
            return "float32"
        return "float64" if self.double is not None and self.double.within else None

    @property
    def decisive(self) -> Errors:
        """The errors that decide: those in float64 where there was need of them."""
        return self.double or self.single


def judge(path: Path) -> Verdict:
    """Compare one worked example in float32 and, where that is over a tolerance, in float64."""
    single = compare(path)
    return Verdict(single) if single.within else Verdict(single, compare(path, dtype=torch.float64))


@dataclass(frozen=True)
class Computed:
    """What we make of a worked example, under the names of its arrays.

    ``outputs``: with the mask of what is compared; ``losses`` with ``total``; ``gradients`` by our parameters' names.
    """

    outputs: dict[str, tuple[Tensor | None, np.ndarray | None]]
    losses: dict[str, Tensor]
    gradients: dict[str, Tensor]
    pairs: np.ndarray


def compute(fixture: Fixture, dtype: torch.dtype = torch.float32) -> Computed:
    """Run our model and losses, forward and backward, on an example with numbers of ``dtype``."""
    model, criterion = fixture.model().to(dtype), fixture.criterion()
    inputs, targets = in_dtype(fixture.inputs, dtype), in_dtype(fixture.targets, dtype)
    output = model(inputs, targets)
    losses = criterion(output, inputs, targets)
    total = criterion.total(losses)
    total.backward()
    return Computed(
        outputs=_outputs(fixture, model, inputs, output),
        losses={name: value.detach() for name, value in losses.items()} | {"total": total.detach()},
        gradients={name: p.grad for name, p in model.named_parameters() if p.grad is not None},
        pairs=_pairs(criterion.inputs(output, inputs, targets).slots[-1], targets),
    )


def compare(path: Path, dtype: torch.dtype = torch.float32) -> Errors:
    """Run one worked example with numbers of ``dtype`` and return how far we are from it."""
    fixture = Fixture(path)
    ours = compute(fixture, dtype)
    expected = {from_official(name): grad for name, grad in fixture.group("grad").items()}
    largest = max(float(np.abs(want).max()) for want in expected.values())
    match = fixture.group("match")
    same_window = "target" not in match or np.array_equal(ours.pairs[:, 1], match["target"])
    return Errors(
        outputs=max(
            relative_error(ours.outputs[name][0], want, ours.outputs[name][1])
            for name, want in fixture.group("out").items()
        ),
        losses=max(relative_error(ours.losses.get(name), want) for name, want in fixture.group("loss").items()),
        gradients=max(
            relative_error(ours.gradients.get(name or ""), want, floor=SMALL_GRADIENT * largest)
            for name, want in expected.items()
        ),
        matching=np.array_equal(ours.pairs[:, 0], match["query"]) and same_window,
    )


def in_dtype(value: Values, dtype: torch.dtype) -> Values:
    """Return inputs or targets with their floating-point tensors in another dtype."""
    tensors = {field.name: getattr(value, field.name) for field in fields(value)}
    changed = {name: x.to(dtype) for name, x in tensors.items() if x is not None and x.is_floating_point()}
    return replace(value, **changed)


def relative_error(
    ours: Tensor | None, want: np.ndarray, mask: np.ndarray | None = None, *, floor: float = 0.0
) -> float:
    """Return the largest error relative to the largest magnitude; infinite where there is nothing to compare.

    Magnitudes below ``floor`` count as ``floor``: some gradients are zero but for rounding (the bias of a key,
    say, which softmax cancels).
    """
    if ours is None or ours.shape != want.shape:
        return float("inf")
    difference = np.abs(ours.detach().double().numpy() - want)
    magnitude = np.abs(want)
    if mask is not None:
        difference, magnitude = difference[mask], magnitude[mask]
    return float(np.nan_to_num(difference.max() / max(magnitude.max(), floor, 1e-12), nan=np.inf))


def _outputs(
    fixture: Fixture, model: Mesm, inputs: Inputs, output: ModelOutput
) -> dict[str, tuple[Tensor | None, np.ndarray | None]]:
    """Return the outputs by the names of the example's, each with the mask of its valid positions."""
    frames, words = fixture.inputs.video_mask.numpy(), fixture.inputs.words_mask.numpy()
    text = output.text_mask.numpy()
    reconstruction = None if model.segment_sentence is None else output.text[:, 0]
    ours: dict[str, tuple[Tensor | None, np.ndarray | None]] = {
        "pred_logits": (output.logits[-1], None),
        "pred_spans": (output.spans[-1], None),
        "saliency_scores": (output.saliency, frames),
        "neg_saliency_scores": (output.negative_saliency, frames),
        "projed_video_feat": (model.video_projection(inputs.video), frames),
        "enhanced_video_feat": (_enhanced_video(model, inputs), frames),
        "recon_feat": (reconstruction, None),
        "expanded_words_feat": (output.text, text),
        "expanded_words_mask": (output.text_mask, None),
        "projed_words_feat": (output.text[:, output.text.shape[1] - words.shape[1] :], words),
        "words_mask": (fixture.inputs.words_mask, None),
        "recfw_words_logit": (output.word_logits, words),
    }
    for layer in range(len(output.logits) - 1):
        ours[f"aux{layer}_pred_logits"] = (output.logits[layer], None)
        ours[f"aux{layer}_pred_spans"] = (output.spans[layer], None)
    if reconstruction is not None:
        ours["projed_recon_feat"] = (model.segment_sentence.head(reconstruction), None)
    return ours


@torch.no_grad()
def _enhanced_video(model: Mesm, inputs: Inputs) -> Tensor:
    """Return the aligner's first input (Q, T, d), which no output holds; the reference forward calls the aligner."""
    found: list[Tensor] = []
    hook = model.aligner.register_forward_pre_hook(lambda _, args: found.append(args[0]))
    Mesm.forward(model, inputs)
    hook.remove()
    return found[0]


def _pairs(slots: Tensor, targets: Targets) -> np.ndarray:
    """Return the (n, 2) matched slots and windows, by query."""
    mask = targets.spans_mask.numpy()
    rows = [
        sorted(zip(row[valid], np.flatnonzero(valid), strict=True))
        for row, valid in zip(slots.numpy(), mask, strict=True)
    ]
    return np.array([pair for row in rows for pair in row])
