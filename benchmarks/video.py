"""Compare the speed of feature extraction with alternatives, in alternating runs.

    python benchmarks/video.py frames VIDEO... [--runs 5]         # frame selection and scaling, compared with ffmpeg
    python benchmarks/video.py clip [--runs 5]                    # CLIP's image encoder, compared with transformers
    python benchmarks/video.py slowfast [--runs 5]                # SlowFast, compared with the unfolded network
    python benchmarks/video.py memory FOLDER                      # memory for 2 minutes and for 2 hours of video

`clip` needs `pip install transformers`. Weights are random, since times do not depend on them.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from mesm_core.backbones.clip_image import ClipImageTransformer
from mesm_core.backbones.slowfast import SlowFast
from mesm_core.backbones.slowfast_fused import fuse_batch_norm
from mesm_core.video.rows import read_rows
from mesm_core.video.scale import geometry
from mesm_core.video.source import Video


def processor_seconds() -> float:
    """Return the CPU time of this process and its children in seconds."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def in_turn(works: dict[str, Callable[[], object]], *, runs: int, count: int, unit: str) -> None:
    """Print the median wall and CPU time of each work, in alternating runs, and its ``unit`` per second."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for run in range(runs + 1):
        for name, work in works.items():
            began, before = time.perf_counter(), processor_seconds()
            work()
            if run:  # the first warms up
                times[name].append((time.perf_counter() - began, processor_seconds() - before))
    print(f"{runs} alternating runs, {torch.get_num_threads()} threads of torch, load {os.getloadavg()[0]:.1f}")
    first = statistics.median(wall for wall, _ in next(iter(times.values())))
    for name, taken in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*taken, strict=True))
        print(f"  {name:<28} {wall:7.2f} s, CPU {cpu:7.2f} s, {count / wall:8.1f} {unit}/s, {wall / first:.2f}")


def frames(args: argparse.Namespace) -> None:
    """Time frame selection and scaling with one thread, for rows of 1 s (CLIP) and of 1/30 s (SlowFast)."""
    for path in args.videos:
        with Video(path) as video:
            to = geometry(video.width, video.height)
        for seconds in (Fraction(1), Fraction(1, 30)):
            scale = f"scale={to.width}:{to.height}:flags=bilinear,crop={to.size}:{to.size}:{to.x}:{to.y}:exact=1"
            words = ["ffmpeg", "-v", "error", "-threads", "1", "-filter_threads", "1", "-i", str(path), "-an", "-vf"]
            words += [f"fps={1 / seconds},{scale}", "-pix_fmt", "rgb24", "-f", "rawvideo", "-y", "/dev/null"]
            rows = sum(1 for _ in read_rows(path, [seconds]))
            ours = f"for p in read_rows({str(path)!r}, [Fraction({str(seconds)!r})]): pass"
            script = f"from fractions import Fraction; from mesm_core.video.rows import read_rows\n{ours}"
            works = {
                "ffmpeg": lambda words=words: subprocess.run(words, check=True),
                "mesm, whole process": lambda script=script: subprocess.run([sys.executable, "-c", script], check=True),
                "mesm": lambda path=path, seconds=seconds: sum(1 for _ in read_rows(path, [seconds])),
            }
            print(f"{path}: {rows} rows of {seconds} s")
            in_turn(works, runs=args.runs, count=rows, unit="rows")


@torch.inference_mode()
def clip(args: argparse.Namespace) -> None:
    """Time CLIP ViT-B/32 in float32 on batches of 16 images, and ours in bfloat16, too."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    size = {"side": 224, "patch": 32, "width": 768, "layers": 12, "heads": 12, "out": 512}
    ours = ClipImageTransformer(**size).eval()
    theirs = CLIPVisionModel(CLIPVisionConfig(patch_size=32, projection_dim=512)).eval()
    pictures = torch.randn(16, 3, 224, 224)
    halved, rounded = ClipImageTransformer(**size).eval().bfloat16(), pictures.bfloat16()
    works = {
        "transformers": lambda: [theirs(pictures) for _ in range(4)],
        "mesm": lambda: [ours(pictures) for _ in range(4)],
        "mesm, bfloat16": lambda: [halved(rounded) for _ in range(4)],
    }
    in_turn(works, runs=args.runs, count=64, unit="images")


@torch.inference_mode()
def slowfast(args: argparse.Namespace) -> None:
    """Time SlowFast R50 8×8 in float32 on batches of 4 windows."""
    plain = SlowFast().eval()
    ours = fuse_batch_norm(plain)
    slow, fast = torch.randn(4, 3, 8, 224, 224), torch.randn(4, 3, 32, 224, 224)
    last = torch.channels_last_3d
    works = {
        "eager": lambda: plain(slow, fast),
        "mesm": lambda: ours(slow.to(memory_format=last), fast.to(memory_format=last)),
    }
    in_turn(works, runs=args.runs, count=4, unit="windows")


def memory(args: argparse.Namespace) -> None:
    """Print the peak memory of extracting 2 minutes and 2 hours of video, each in its own process."""
    import av

    peak = "import resource, sys; from mesm_cli.app import app\ntry: app()\nfinally: print('peak MB', "
    peak += "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)"
    for minutes in (2, 120):
        path = args.folder / f"{minutes}min.mp4"
        if not path.exists():
            with av.open(str(path), "w") as output:
                stream = output.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
                stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
                ramp = np.broadcast_to(np.linspace(0, 255, 320).astype(np.uint8)[:, None], (240, 320, 3))
                for number in range(minutes * 600):
                    picture = np.ascontiguousarray(np.roll(ramp, number, axis=1))
                    output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                output.mux(stream.encode())
        words = [
            "extract",
            str(path),
            str(args.folder / "out"),
            "--backbone",
            "pixels",
            "--clip-len",
            "1",
            "--overwrite",
        ]
        print(f"{minutes} minutes:", end=" ", flush=True)
        subprocess.run([sys.executable, "-c", peak, *words, "--device", "cpu"], check=True)


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parts = parser.add_subparsers(required=True)
    for work in (frames, clip, slowfast, memory):
        part = parts.add_parser(work.__name__)
        part.set_defaults(work=work)
        if work is frames:
            part.add_argument("videos", nargs="+", type=Path)
        if work is memory:
            part.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.work(args)


if __name__ == "__main__":
    main()
