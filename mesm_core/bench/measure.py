"""Timings of training, evaluation and prediction, also in units of a matrix product to compare machines."""

from __future__ import annotations

import itertools
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from mesm_core.bench.flops import forward_flops, training_flops
from mesm_core.bench.sizes import InventedText, invented_dataset
from mesm_core.build import build_criterion, build_model, evaluation_settings
from mesm_core.config.schema import Config
from mesm_core.data.dataset import MomentDataset
from mesm_core.data.sampling import Group
from mesm_core.inference.evaluate import predict_split
from mesm_core.inference.predictor import MomentRetriever
from mesm_core.model.mesm import Mesm
from mesm_core.training.loop import train_epoch
from mesm_core.training.memory import keep_freed_memory
from mesm_core.training.objective import Objective
from mesm_core.training.optim import make_optimizer
from mesm_core.training.precision import compiled, float32_products
from mesm_core.training.record import describe_host, versions
from mesm_core.types import Batch

GEMM = 2048
WARM_UP = 2
VIDEO_SECONDS = 150.0
LABEL_WORDS = 1000  # used if text.vocab_size is auto


@dataclass(frozen=True)
class Stage:
    """Name of the stage that is measured next."""

    name: str


class _FirstBatches(MomentDataset):
    """The first batches of a dataset; in training, preceded by the ``WARM_UP`` largest of them.

    After the largest batches, memory is allocated and graphs are compiled for all sizes.
    """

    def __init__(self, whole: MomentDataset, batches: int) -> None:
        self.__dict__ |= vars(whole)
        self._batches = batches

    def plan(self, *, seed: int, epoch: int, batch_size: int) -> list[list[Group]]:
        """Return the largest of the first batches of an epoch, followed by all of these batches."""
        first = super().plan(seed=seed, epoch=epoch, batch_size=batch_size)[: self._batches]

        def frames(batch: list[Group]) -> int:
            return sum(len(group) * len(self.features.get(self.queries[group[0]].vid)) for group in batch)

        largest = sorted(first, key=frames, reverse=True)
        return [largest[number % len(largest)] for number in range(WARM_UP)] + first

    def eval_plan(self, *, batch_size: int) -> list[list[Group]]:
        """Return the first batches of the split."""
        return super().eval_plan(batch_size=batch_size)[: self._batches]


def bench(config: Config, *, device: torch.device, steps: int) -> Iterator[Stage | dict[str, Any]]:
    """Yield the name of each stage before it is measured, and finally the results.

    Args:
        steps: number of batches to time in training and in evaluation, after warming up.
    """
    keep_freed_memory()
    config = config.with_label_words(LABEL_WORDS)
    yield Stage("invented data")
    data, text = invented_dataset(config)
    torch.manual_seed(config.train.seed)
    model = build_model(config.model, classes=text.classes, max_words=config.dataset.max_words).to(device)
    yield Stage("training")
    training = _training(config, model, _FirstBatches(data, steps), device=device)
    yield Stage("evaluation")
    evaluation = _evaluation(config, model, data, device=device, steps=steps)
    yield Stage("prediction")
    prediction = _prediction(config, model, text, device=device)
    yield {
        "dataset": config.dataset.name,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": config.train.precision,
        "compile": config.train.compile,
        "video_dim": config.model.video_dim,
        "steps": steps,
        "training": training,
        "evaluation": evaluation,
        "prediction": prediction,
        "peak_memory_mb": round(peak_memory(device) / 2**20),
        "host": describe_host(),
        "versions": versions(),
        "command": sys.argv,
        "date": time.strftime("%Y-%m-%d"),
    }


def seconds_of_product(device: torch.device, *, size: int = GEMM, repeats: int = 10, warm_up: int = 3) -> float:
    """Return the median time of a float32 product of (size, size) matrices, after warming up.

    The product never uses TF32, whatever the precision of the process is.
    """
    a, b = torch.randn(2, size, size, device=device)
    times = []
    with float32_products("highest"):
        for _ in range(warm_up + repeats):
            began = _now(device)
            a @ b
            times.append(_now(device) - began)
    return statistics.median(times[warm_up:])


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of the process in bytes, on the GPU or on the host."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _training(config: Config, model: Mesm, data: _FirstBatches, *, device: torch.device) -> dict[str, Any]:
    train = config.train
    plan = data.plan(seed=train.seed, epoch=0, batch_size=train.batch_size)
    objective = Objective(model, build_criterion(config.loss, config.model))
    steps = train_epoch(
        compiled(objective) if train.compile else objective,
        make_optimizer(model, lr=train.lr, weight_decay=train.weight_decay),
        data,
        epoch=0,
        seed=train.seed,
        batch_size=train.batch_size,
        grad_clip=train.grad_clip,
        device=device,
        precision=train.precision,
    )
    for _ in itertools.islice(steps, WARM_UP):
        pass
    products = [seconds_of_product(device)]
    queries, waited, seconds, began = 0, 0.0, 0.0, _now(device)
    for step in steps:
        queries, waited = queries + step.queries, waited + step.waited
        # The speed of a shared CPU changes within seconds. On a GPU this would synchronise every step.
        if device.type == "cpu":
            seconds += _now(device) - began
            products.append(seconds_of_product(device, repeats=1, warm_up=1))
            began = _now(device)
    if device.type != "cpu":
        seconds = _now(device) - began
        products.append(seconds_of_product(device))
    flops = 0.0
    for index in range(WARM_UP, len(plan)):
        batch = data.train_batch(plan[index], seed=train.seed, epoch=0, index=index)
        flops += sum(_training_flops(config, batch, config.text.label_words))
    return _speed(queries, seconds, flops, statistics.mean(products)) | {"waiting_for_data": round(waited / seconds, 3)}


def _evaluation(
    config: Config, model: Mesm, data: MomentDataset, *, device: torch.device, steps: int
) -> dict[str, Any]:
    settings = evaluation_settings(config)
    predict = partial(
        predict_split, model, batch_size=settings["batch_size"], device=device, decoding=settings["decoding"]
    )
    predict(_FirstBatches(data, 1))
    products = [seconds_of_product(device)]
    began = _now(device)
    answered = predict(_FirstBatches(data, steps))
    seconds = _now(device) - began
    products.append(seconds_of_product(device))
    flops = 0.0
    for batch in data.batches(_FirstBatches(data, steps).eval_plan(batch_size=settings["batch_size"])):
        flops += sum(forward_flops(config.model, frames=t, words=w) for t, w in zip(*_valid(batch), strict=True))
    return _speed(len(answered), seconds, flops, statistics.mean(products))


def _prediction(config: Config, model: Mesm, text: InventedText, *, device: torch.device) -> dict[str, Any]:
    """Time one query about a video of 150 seconds, with one CPU thread, as in a worker of a server."""
    retriever = MomentRetriever(config=config, model=model, text=text, device=device)
    rate = 1 / config.dataset.clip_len if config.dataset.clip_len > 0 else 1.0
    frames = np.random.default_rng(0).normal(size=(round(VIDEO_SECONDS * rate), config.model.video_dim))
    threads = torch.get_num_threads()
    model_seconds: list[float] = []
    forward = model.forward

    def timed(*inputs: Any) -> Any:
        began = _now(device)
        output = forward(*inputs)
        model_seconds.append(_now(device) - began)
        return output

    model.forward = timed  # type: ignore[method-assign, assignment]
    torch.set_num_threads(1)
    try:
        answer_seconds = []
        for _ in range(23):
            began = _now(device)
            retriever.locate(frames.astype(np.float32), ["w w w w w w w w"], duration=VIDEO_SECONDS)
            answer_seconds.append(_now(device) - began)
    finally:
        torch.set_num_threads(threads)
        model.forward = forward  # type: ignore[method-assign]
    used = min(len(frames), config.dataset.max_frames)
    return {
        "frames": used,
        "model_ms": round(1e3 * statistics.median(model_seconds[3:]), 2),
        "model_ms_best": round(1e3 * min(model_seconds[3:]), 2),
        "answer_ms": round(1e3 * statistics.median(answer_seconds[3:]), 2),
        "threads": 1,
    }


def _training_flops(config: Config, batch: Batch, classes: int) -> Iterator[float]:
    if batch.targets is None:
        raise ValueError("a training batch has targets")
    moments = batch.targets.moment_mask.sum(dim=1).tolist()
    for frames, words, moment in zip(*_valid(batch), moments, strict=True):
        yield training_flops(config.model, frames=frames, words=words, moment=moment, classes=classes)


def _valid(batch: Batch) -> tuple[list[int], list[int]]:
    frames = batch.inputs.frames_mask.sum(dim=1)
    return frames.tolist(), batch.inputs.words_mask.sum(dim=1).tolist()


def _speed(queries: int, seconds: float, flops: float, product: float) -> dict[str, Any]:
    return {
        "queries": queries,
        "queries_per_s": round(queries / seconds, 2),
        "products_per_query": round(seconds / queries / product, 3),
        "product_seconds": round(product, 5),
        "useful_gflops": round(flops / seconds / 1e9, 1),
        "useful_share_of_product_rate": round(flops / seconds / (2 * GEMM**3 / product), 3),
    }


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
