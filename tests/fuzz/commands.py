"""Command lines to start from: every command, with the inputs that it reads."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import click
import typer.main

from tests.conftest import SMALL

TINY = " ".join(f"--set {setting}" for setting in SMALL)
TACOS = "data/TACoS data/glove.invented.txt"
RUN = "runs/tacos-a"
FAMILY = "families/tacos-two"
OFFICIAL = "official/model_best.ckpt official/opt.json"
GROUPS = {"prepare", "runs", "config", "weights", "cache", "index"}
FEATURES = "data/TACoS/c3d.hdf5"


@dataclass(frozen=True)
class Command:
    """A command line, and all that it takes.

    ``line``: its words; ``reads``: the inputs it needs, files or folders, copied before it starts; ``tail``: words
    that are never changed, for example to end a training early; ``stdin``: the file on standard input; ``rewrites``:
    patterns of inputs that it may change; ``keeps``: patterns of outputs that may stay after an error; ``works``:
    whether it succeeds when nothing is wrong; ``weight``: how often it is drawn.
    """

    line: str
    reads: str = ""
    tail: str = ""
    stdin: str | None = None
    rewrites: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    works: bool = True
    weight: int = 2

    @property
    def words(self) -> list[str]:
        """The words that may be changed."""
        return shlex.split(self.line)

    @property
    def name(self) -> str:
        """The words that name the command, e.g. ``prepare glove``."""
        words = self.line.split()
        return " ".join(words[: 2 if words[0] in GROUPS else 1])

    @property
    def last_words(self) -> list[str]:
        """The words that may not."""
        return shlex.split(self.tail)

    @property
    def inputs(self) -> list[str]:
        """Files and folders to copy."""
        return self.reads.split()


def _convert(dataset: str, split: str, folder: str) -> Command:
    return Command(f"prepare convert out.jsonl --dataset {dataset} --split {split} --annotations {folder}", folder)


COMMANDS: tuple[Command, ...] = (
    Command("prepare npy2hdf5 npy out.hdf5", "npy", weight=6),
    Command("prepare npy2hdf5 npz out.hdf5 --fps 0.5 --key features --json", "npz", weight=6),
    Command(
        "prepare npy2hdf5 --concat npy npz out.hdf5 --dtype float16 --compression gzip",
        "npy npz",
    ),
    Command("prepare npy2hdf5 list.txt out.hdf5 --name-regex '(\\w+-\\d+)'", "list.txt npy"),
    Command(
        "prepare npy2hdf5 npy glove.h5 --resume",
        "npy glove.h5",
        rewrites=("glove.h5",),
        works=False,
        weight=1,
    ),
    Command("prepare npy2hdf5 npy.tar.gz out.hdf5 --name-format '{}.avi'", "npy.tar.gz", weight=4),
    Command("prepare npy2hdf5 npz.zip::npz out.hdf5 --json", "npz.zip", weight=4),
    Command("prepare npy2hdf5 npy.tar::npy out.hdf5 --dtype float16", "npy.tar", weight=3),
    Command(f"prepare hdf52npy {FEATURES} out", FEATURES, weight=6),
    Command(
        "prepare glove glove.txt out.h5 --dataset tacos --annotations data/TACoS/annotations --set model.text_dim=8",
        "glove.txt data/TACoS/annotations",
        weight=3,
    ),
    Command("prepare glove glove.txt.gz out.h5 --dataset tacos --data-dir data --set model.text_dim=8",
            "glove.txt.gz data/TACoS/annotations"),
    Command("prepare glove glove.zip out.h5 --dataset tacos --data-dir data --set model.text_dim=8 --json",
            "glove.zip data/TACoS/annotations"),
    Command("prepare glove glove.pkl out.h5", "glove.pkl", weight=3),
    Command("prepare clip-text clip/clip.pth out.safetensors --heads 2", "clip/clip.pth", weight=3),
    Command("prepare clip-text clip/open.pt out.safetensors --heads 2 --json", "clip/open.pt"),
    Command("prepare clip-text clip/ViT-B-32.pt out.safetensors --heads 2", "clip/ViT-B-32.pt", weight=3),
    Command("prepare clip-text clip/open_clip.safetensors out.safetensors --activation gelu",
            "clip/open_clip.safetensors", weight=3),
    _convert("tacos", "val", "data/TACoS/annotations"),
    _convert("charades", "test", "data/charades/annotations"),
    _convert("charades-cd", "val", "data/Charades-CD"),
    _convert("charades-cg", "novel_word", "data/Charades-CG"),
    _convert("qvhighlights", "val", "data/qvhighlights/annotations"),
    Command("prepare convert out.jsonl --dataset jsonl --split train.jsonl --json", "train.jsonl", weight=3),
    Command(f"prepare check --dataset tacos --data-dir data --glove data/glove.invented.txt {TINY}", TACOS, weight=4),
    Command(
        f"prepare check --dataset charades-vgg-glove --annotations data/charades/annotations --features {FEATURES} "
        f"--glove glove.h5 --json {TINY} --set text.vocab_size=3 --set dataset.clip_len=0.5",
        f"data/charades/annotations {FEATURES} glove.h5",
        weight=3,
    ),
    Command("count-tokens --dataset tacos --data-dir data --out out --kind glove", "data/TACoS/annotations"),
    Command("prepare count-tokens --dataset charades --data-dir data --out out --kind clip --json",
            "data/charades/annotations"),
    Command("prepare count-tokens --dataset jsonl --annotations . --split train --out out --kind glove",
            "train.jsonl"),
    Command(
        f"train --dataset tacos --data-dir data --glove data/glove.invented.txt --config mine.toml {TINY}",
        f"{TACOS} mine.toml",
        tail="--set train.epochs=1",
        weight=3,
    ),
    Command(
        "train --dataset jsonl --annotations own --videos videos --backbone pixels --glove data/glove.invented.txt "
        f"{TINY} --set model.video_dim=256 --set dataset.clip_len=0.1 --set dataset.train=own/own.jsonl",
        "own videos data/glove.invented.txt",
        tail="--set dataset.eval=own/own.jsonl --set train.epochs=1 --set train.loggers=[] --device cpu",
        keeps=("own/features*",),
        weight=2,
    ),
    Command(
        f"train --dataset qvhighlights --data-dir data --features {FEATURES} --skip-missing {TINY} --json",
        f"data/qvhighlights {FEATURES}",
        tail="--set train.epochs=1",
        works=False,
        weight=1,
    ),
    Command(
        f"train --init best.pt --data-dir data --glove data/glove.invented.txt {TINY}",
        f"best.pt {TACOS}",
        tail="--set train.epochs=1",
    ),
    Command(
        f"train --resume {RUN} --data-dir data --glove data/glove.invented.txt",
        f"{RUN} {TACOS}",
        tail="--set train.epochs=1",
        rewrites=(f"{RUN}/*",),
        keeps=(f"{RUN}/*",),
        weight=3,
    ),
    Command(
        f"train --dataset tacos --seeds 7,8 --data-dir data --glove data/glove.invented.txt {TINY} --json",
        TACOS,
        tail="--set train.epochs=1 --set train.loggers=[]",
        weight=1,
    ),
    Command(
        f"train --resume {FAMILY} --data-dir data --glove data/glove.invented.txt",
        f"{FAMILY} {TACOS}",
        tail="--set train.epochs=1",
        rewrites=(f"{FAMILY}/*",),
        keeps=(f"{FAMILY}/*",),
    ),
    Command(
        f"train --like {RUN} --name again --data-dir data --glove data/glove.invented.txt",
        f"{RUN} {TACOS}",
        tail="--set train.epochs=1",
    ),
    Command("eval best.pt --data-dir data --split val --json", "best.pt data/TACoS", weight=4),
    Command("eval exported --data-dir data --output out.jsonl --report out.html", "exported data/TACoS", weight=3),
    Command(
        "eval official/model_best.ckpt --data-dir data --glove data/glove.invented.txt --output out.jsonl",
        f"{OFFICIAL} {TACOS}",
        weight=3,
    ),
    Command("calibrate best.pt --data-dir data --output out.pt --json", "best.pt data/TACoS", works=False, weight=3),
    Command(
        f"calibrate exported --data-dir data --on train.jsonl --features {FEATURES} --output out.pt",
        "exported data/TACoS train.jsonl",
        works=False,
    ),
    Command(
        f"predict best.pt --features {FEATURES} --video test-000 --duration 60 --window 20 'The man cuts a pan.' "
        "kettle --json",
        f"best.pt {FEATURES}",
        weight=6,
    ),
    Command(
        f"predict best.pt --features {FEATURES} --queries queries.jsonl --data-dir data --output out.jsonl",
        "best.pt data/TACoS queries.jsonl",
        weight=4,
    ),
    Command(
        f"predict exported --features {FEATURES} --queries queries.txt --video test-001 --duration 33.5 "
        "--plot out.html --top 2 --nms 0.5",
        f"exported {FEATURES} queries.txt",
        weight=3,
    ),
    Command(
        f"predict official/model_best.ckpt --features {FEATURES} --glove data/glove.invented.txt --queries "
        "queries.jsonl.gz --data-dir data --independent",
        f"{OFFICIAL} {TACOS} queries.jsonl.gz",
        weight=3,
    ),
    Command(
        f"predict best.pt --features {FEATURES} --queries - --output - --data-dir data",
        "best.pt data/TACoS queries.jsonl",
        stdin="queries.jsonl",
        weight=4,
    ),
    Command(
        f"eval zero-shot --dataset tacos --data-dir data --features {FEATURES} --clip clip.safetensors --split val "
        "--output out.jsonl",
        f"data/TACoS {FEATURES} clip.safetensors",
        weight=3,
    ),
    Command(
        f"predict zero-shot --features {FEATURES} --clip clip.safetensors --video test-000 --duration 60 kettle --json",
        f"{FEATURES} clip.safetensors",
        weight=3,
    ),
    Command("export best.pt out", "best.pt", weight=3),
    Command("export exported out.ckpt --official --json", "exported", weight=3),
    Command("export official/model_best.ckpt out", OFFICIAL, weight=3),
    Command("score ours.jsonl truth.jsonl --json", "ours.jsonl truth.jsonl", weight=6),
    Command(
        "score ours.jsonl.gz theirs.jsonl --truth truth.jsonl --ci --per-query out.jsonl --format csv",
        "ours.jsonl.gz theirs.jsonl truth.jsonl",
        weight=3,
    ),
    Command("score ours.jsonl --against theirs.jsonl --truth truth.jsonl --json",
            "ours.jsonl theirs.jsonl truth.jsonl", weight=3),
    Command(f"score {FAMILY} --against {RUN} --dataset tacos --split val --data-dir data --format markdown",
            f"{FAMILY} {RUN} data/TACoS/annotations"),
    Command("score ours.jsonl --dataset tacos --split val --data-dir data --allow-partial",
            "ours.jsonl data/TACoS/annotations", works=False),
    Command("extract videos out --backbone pixels --clip-len 1/10 --decoders 1 --device cpu --json", "videos",
            weight=4),
    # These addresses end the command before Ray is imported.
    Command("extract videos out --backbone pixels --device cpu --decoders 1", "videos", tail="--ray nowhere",
            works=False, weight=1),
    Command("index build out videos --weights clip-b32=tiny.pt", "videos tiny.pt", tail="--ray ray://nowhere",
            works=False, weight=1),
    Command("locate video.mp4 kettle --weights clip-b32=tiny.pt --clip-len 1/2 --top 2 --json", "video.mp4 tiny.pt",
            weight=4),
    Command(
        "locate videos --queries queries.txt --weights clip-b32=tiny.pt --device cpu --cut out --fast --page out.html "
        "-o out.csv",
        "videos queries.txt tiny.pt",
        keeps=("out/*", "out.html", "out.csv"),
        weight=4,
    ),
    # The server itself would wait for requests: this --host ends it before it starts.
    Command("serve videos --weights clip-b32=tiny.pt --uploads out --max-upload 10MB --port 0", "videos tiny.pt",
            tail="--host 192.0.2.1", works=False),
    Command("locate video.mkv 'The man cuts a pan.' --model best.pt --format edl", "video.mkv best.pt", works=False),
    Command(
        "index build out videos --weights clip-b32=tiny.pt --clip-len 1/10 --segment 0.1 --decoders 1 --device cpu "
        "--json",
        "videos tiny.pt",
        keeps=("out", "out/*"),
        weight=4,
    ),
    Command("index build out clip_image.hdf5 --clip-len 1", "clip_image.hdf5", keeps=("out", "out/*"), weight=3),
    Command("index add my.index videos --weights clip-b32=tiny.pt --device cpu", "my.index videos tiny.pt",
            rewrites=("my.index/*",), keeps=("my.index/*",), weight=3),
    Command("index remove my.index v0001 --json", "my.index", rewrites=("my.index/*",), keeps=("my.index/.lock",),
            weight=3),
    Command("index stats my.index --json", "my.index", weight=3),
    Command("index verify my.index --json", "my.index", weight=4),
    Command("search my.index kettle --weights clip-b32=tiny.pt --device cpu --top 2 --json", "my.index tiny.pt",
            weight=4),
    Command("search my.index --queries queries.txt --weights clip-b32=tiny.pt --device cpu --stage one -o out.csv "
            "--page out.html", "my.index queries.txt tiny.pt", keeps=("out.html", "out.csv"), weight=3),
    Command("search my.index --like v0001@0-0.1 --json", "my.index", weight=3),
    Command("index move my.index exact --json", "my.index", keeps=("my.index/.lock",), works=False, weight=1),
    Command("cache list --json", weight=1),
    Command("cache clear features --older-than 30 --json", weight=1),
    Command(f"extract {FEATURES} --compare {FEATURES} --json", FEATURES),
    Command(f"prepare merge {FEATURES} out.hdf5 --json", FEATURES),
    Command("bench --compare bench.json --steps 2", "bench.json", tail="--device nowhere", works=False),
    Command(f"bench --config mine.toml {TINY}", "mine.toml", tail="--device nowhere", works=False, weight=1),
    Command("probe video.mp4 --rows --clip-len 1/2 --json", "video.mp4", weight=4),
    Command("probe video.mkv", "video.mkv", weight=4),
    Command("doctor --data-dir data --json", TACOS, weight=1),
    Command("runs runs", RUN, weight=3),
    Command("runs list runs --json", RUN),
    Command(f"runs show {RUN} --html out.html", RUN, weight=3),
    Command(f"runs diff {RUN} runs/tacos-a --json", RUN),
    Command("runs families", FAMILY),
    Command(f"runs show {FAMILY} --json", FAMILY),
    Command("config show --dataset tacos --config mine.toml --set train.lr=1e-4 --json", "mine.toml", weight=4),
    Command(f"config show --config {RUN}/config.json", f"{RUN}/config.json"),
    Command("config validate mine.toml --dataset tacos", "mine.toml", weight=4),
    Command("config import flags.json", "flags.json", weight=4),
    Command("weights list --json", weight=1),
    Command("weights where slowfast-r50-pytorchvideo --data-dir weights", "weights"),
    Command("weights verify --data-dir weights", "weights"),
    Command("weights pull slowfast-r50 --from npy.tar.gz --overwrite", "npy.tar.gz", tail="--json"),
    Command("demo --overwrite", "best.pt", works=False, weight=1, tail="--out best.pt --device nowhere"),
    Command("demo --out out", works=False, weight=1, tail="--device nowhere"),
    Command("--version", works=True, weight=1),
)  # fmt: skip


def schedule() -> list[Command]:
    """Return the commands, each as often as its weight, spread evenly, so that few inputs meet every command."""
    placed = [
        ((turn + 0.5) / command.weight, number, command)
        for number, command in enumerate(COMMANDS)
        for turn in range(command.weight)
    ]
    return [command for _, _, command in sorted(placed, key=lambda item: item[:2])]


def app_commands() -> set[tuple[str, ...]]:
    """Return the names of all commands of the Typer app, e.g. ``("prepare", "glove")``."""
    from mesm_cli.app import app

    return set(_leaves(typer.main.get_command(app), ()))


@cache
def value_options(words: tuple[str, ...]) -> set[str]:
    """Return the options of the command that ``words`` begin with that take the next word as their value."""
    from mesm_cli.app import app

    command = typer.main.get_command(app)
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    options = [param for param in command.params if not getattr(param, "is_flag", True)]  # arguments have no flags
    return {name for option in options for name in option.opts}


def _leaves(command: click.Command, name: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name
        return
    for word, below in inner.items():
        yield from _leaves(below, (*name, word))
