"""Training and evaluation of every preset on tensors of a GPU that is not there; a process of its own.

    python -m tests.training.fake_cuda_steps FOLDER-OF-FAKE_CUDA PRESET[:PRECISION[:reference|absent]] …

Prints a JSON object: "preset precision" -> [what crossed between host and device in training, kernel launches of a
training step, the same two of an evaluation batch]; with "reference" at the end of the word and of the key, of the
plain modules (``model.fast=false``), with "absent", of training with ``loss.absent``.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from mesm_core.config.schema import Config
    from mesm_core.types import Batch

PRECISIONS = ("fp32", "tf32", "bf16")
# Widths are data; what they are multiplied to is not.
SMALLER = ("model.video_dim=24", "model.text_dim=20", "text.vocab_size=30")
WINDOWS = ((1.0, 4.0), (6.0, 9.0), (11.0, 12.0), (14.0, 20.0), (21.0, 23.0))


def main(folder: str, presets: list[str]) -> None:
    """Run the presets' steps and print what crossed."""
    sys.path.insert(0, folder)
    import fake_cuda  # before torch

    mode = fake_cuda.mode()  # one for all: what is kept between steps is of its tensors
    found: dict[str, list[Any]] = {}
    for word in presets:
        preset, only, variant = [*word.split(":"), "", ""][:3]
        batches = make_batches(preset, variant)
        for precision in [only] if only else PRECISIONS:
            key = f"{preset} {precision} {variant}".rstrip()
            found[key] = run_steps(fake_cuda, mode, batches, precision)
    print(json.dumps(found), flush=True)


def make_batches(preset: str, variant: str) -> tuple[Config, int, Batch, Batch]:
    """Return the settings of a preset, the number of label words, a training batch and an evaluation batch."""
    import torch

    from mesm_core.bench.sizes import invented_dataset
    from mesm_core.config.load import load_config

    def unpinned(size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8)

    changed = {"": [], "reference": ["model.fast=false"], "absent": ["loss.absent=1"]}[variant]
    config = load_config(preset, overrides=[*SMALLER, *changed])
    data, text = invented_dataset(config)
    several = config.dataset.max_windows
    data.queries = tuple(
        replace(query, windows=WINDOWS[: 1 + number % several] if several > 1 else query.windows)
        for number, query in enumerate(data.queries)
    )
    plan = data.plan(seed=0, epoch=0, batch_size=config.train.batch_size)
    train = data.train_batch(plan[0], seed=0, epoch=0, index=0, pack=unpinned)
    held = next(iter(data.batches(data.eval_plan(batch_size=config.eval.batch_size)[:1], pack=unpinned)))
    return config, text.classes, train, held


def run_steps(fake_cuda: Any, mode: Any, batches: tuple[Config, int, Batch, Batch], precision: str) -> list[Any]:
    """Return what crossed and the launches in the second training step, and in an evaluation batch."""
    import torch

    from mesm_core.build import build_criterion, build_model
    from mesm_core.training.finite import FiniteWatch
    from mesm_core.training.loop import train_epoch
    from mesm_core.training.objective import Objective
    from mesm_core.training.optim import make_optimizer

    class Noted(FiniteWatch):
        """Checks no step: reading a value is impossible on the fake device."""

        def check(self, norm: Tensor, *, epoch: int, step: int) -> None:
            self._batches.clear()
            assert norm.device.type == "cuda"

    class Prepared:
        """A dataset of one batch that is there already."""

        def __init__(self, batch: Batch) -> None:
            self.batch = batch
            self.readers = 1

        def plan(self, **_: Any) -> list[list[int]]:
            return [[0], [0]]

        def train_batch(self, *_: Any, **__: Any) -> Batch:
            return self.batch

    def faked(batch: Batch) -> Batch:
        return replace(batch._moved(mode.from_tensor), buffer=mode.from_tensor(batch.buffer))

    config, classes, train, held = batches
    device = torch.device("cuda", 0)
    with mode:
        with device:
            model = build_model(config.model, classes=classes, max_words=config.dataset.max_words)
        steps = train_epoch(
            Objective(model, build_criterion(config.loss, config.model)),
            make_optimizer(model, lr=1e-4, weight_decay=1e-4),
            Prepared(faked(train)),  # type: ignore[arg-type]
            epoch=0,
            seed=0,
            batch_size=1,
            grad_clip=config.train.grad_clip,
            device=device,
            precision=precision,
            watch=Noted(device),
        )
        next(steps)  # makes what is kept on the device
        with fake_cuda.Watch() as training:
            next(steps)
        batch = faked(held)
        model.eval()
        for _ in range(2):
            with fake_cuda.Watch() as evaluation, torch.no_grad():
                model(batch.to(device).inputs)
    return [
        training.crossings,
        sum(training.launches.values()),
        evaluation.crossings,
        sum(evaluation.launches.values()),
    ]


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2:])
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)  # torch's clean-up looks for a real driver
