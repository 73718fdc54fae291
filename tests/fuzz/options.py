"""What can be wrong with a command line: numbers, names, paths, settings, and outputs that should not be written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from mesm_core.config.load import known_keys
from tests.fuzz.commands import GROUPS
from tests.fuzz.values import ODD_TOML

NUMBERS = (
    "0", "-1", "1", "0.5", "nan", "inf", "-inf", "1e400", "1e-320", "9" * 30, "9" * 400, "9" * 5000, "", " ", "3.7",
    "x", "1_0", "0x10", "٣", "²", "1e3", "-0", "true", "None", "2147483648", "9223372036854775808", "--", "1,2",
)  # fmt: skip
STRINGS = (
    "", " ", "x", "-", "--", "-x", "ü", "caf\udce9", "\udcff\udcfe", "a b", "a\nb", "a\tb", "x" * 300, "x" * 5000,
    "[/]", "[bold]", "{}", "%s%n", "\u2028", "\u202e", "../x", "~", "$HOME", "`id`", "*", "[", "[!a]", "?", "(",
    "(a+)+$", "\\", "\x1b[31m", "None", "nan", "0", "-1", "tacos", "TACOS ", "charades", "jsonl", "qvhighlights",
    "train", "val", "test", "cuda", "cpu", "cuda:99", "cuda:-1", "meta", "mps", "xpu:x", "fp32", "bf16", "fp16", "😀",
    "e\u0301",
)  # fmt: skip
PATHS = (
    "", ".", "..", "/usr/bin", "/nowhere/x", "nowhere/x", "/dev/null", "/dev/full", "/dev/null/x", "/proc/self/mem",
    "/proc/version", "x" * 300, "x/" * 3000, "a\udcff.npy", "caf\udce9/x.h5", " ", "~", "-", "*.npy", "[",
    "a\nb.jsonl", "ü.toml", "x.json", "x.pt", "x.ckpt", "x.safetensors", "x.mp4", "x.npy", "x.txt.gz", "x.zip",
    "x.html", "x.png", "x.pdf", "..hidden", "con",
)  # fmt: skip
EXTRA = (
    ["--unknown"], ["--unknown=3"], ["-q"], ["--json"], ["--json", "--json"], ["--help"], ["--overwrite"], ["--"],
    ["extra"], ["--device", "cuda:99"], ["--device", ""], ["--device", "meta"], ["--gpus", "2"], ["--gpus", "0"],
    ["--precision", "fp16"], ["--precision", "bf16"], ["--threads", "0"], ["--steps", "0"], ["--top", "0"],
    ["--nms", "nan"], ["--nms", "0"], ["--nms", "2"], ["--nms", "-0.5"], ["--duration", "nan"], ["--duration", "-3"],
    ["--duration", "1e308"], ["--fps", "nan"], ["--fps", "1e308"], ["--max-skew", "-1"], ["--heads", "3"],
    ["--heads", "9999999999"], ["--max-words", "2"], ["--max-words", "99999999999"], ["--split", "tst"],
    ["--split", "../../x"], ["--split", ""], ["--name", "../x"], ["--name", ""], ["--name", "x" * 300],
    ["--name", "a/b"], ["--runs-dir", "/dev/null"], ["--strict"], ["--force"], ["--resume"], ["--seed", "-1"],
    ["--seed", "9" * 30], ["--ci", "--seed", "-5"], ["--truth", "nowhere"], ["--data-dir", ""],
    ["--data-dir", "caf\udce9"], ["--annotations", ""], ["--features", "nowhere"], ["--glove", ""],
    ["--clip", "/dev/null"], ["--skip-missing"], ["--independent"], ["--compile", "--device", "nowhere"],
    ["--video", "caf\udce9"],
    ["--video", ""], ["--key", ""], ["--key", "\udcff"], ["--name-regex", "("], ["--name-regex", ""],
    ["--name-regex", "(a+)+$"], ["--format", "pdf"], ["--plot", "p.xyz"], ["--report", "nowhere/r.html"],
    ["--queries", "nowhere"], ["--per-query", "nowhere/x"], ["--html", "/dev/full"], ["--output", "/dev/full"],
    ["--window", "nan"], ["--window", "0.1"], ["--window", "off"], ["--compression", "zip"], ["--dtype", "int8"],
)  # fmt: skip
PLAIN_SETTINGS = ("3", "0.25", "clip", "glove-pkl", "nltk", "lexicon", "caf\udce9", "x", "val", '["val", "test"]')
NO_SETTINGS = (
    "",
    "=",
    "x",
    "=3",
    ".=3",
    "a.b.c=1",
    "model=3",
    "model.=3",
    "train.lr",
    "train.lr.x=1",
    "ü=1",
    "\udcff=1",
)
CHEAP = ("train.epochs", "train.compile")


def odd_options(rng: Random, words: list[str], folder: Path) -> tuple[str, set[str]]:
    """Change a command line in place; return what was done and the files that it may now replace."""
    how = rng.choice(list(OPTIONS))
    return OPTIONS[how](rng, words, folder)


def _first(words: list[str]) -> int:
    """Return where the arguments begin, after the command's name."""
    return min(2 if words[0] in GROUPS else 1, len(words))


def _arguments(words: list[str]) -> list[int]:
    """Return the places of values: not the command's name, not the names of options."""
    return [place for place in range(_first(words), len(words)) if not words[place].startswith("--")]


def odd_value(rng: Random, words: list[str], folder: Path) -> tuple[str, set[str]]:
    """Replace a value by one that does not fit its kind, or any kind."""
    places = _arguments(words)
    if not places:
        return more(rng, words, folder)
    place = rng.choice(places)
    old = words[place]
    option = words[place - 1] if place else ""
    if option == "--set":
        return setting(rng, words, folder)
    number = old.replace(".", "", 1).lstrip("-").isdigit()
    pool = NUMBERS if number else PATHS if ("/" in old or "." in old or old.startswith("out")) else STRINGS
    if rng.random() < 0.2:
        pool = rng.choice([NUMBERS, STRINGS, PATHS])
    words[place] = rng.choice(pool)
    return f"{old!r} replaced", set()


def setting(rng: Random, words: list[str], folder: Path) -> tuple[str, set[str]]:
    """Add a setting whose value or key does not fit."""
    key = rng.choice([key for key in known_keys() if key not in CHEAP])
    value = rng.choice(ODD_TOML + PLAIN_SETTINGS)
    word = f"{key}={value}"
    if rng.random() < 0.15:
        word = rng.choice(NO_SETTINGS)
    words += ["--set", word]
    return "a setting", set()


def more(rng: Random, words: list[str], folder: Path) -> tuple[str, set[str]]:
    """Add options and arguments that are unknown, belong to others, or contradict those there."""
    words += rng.choice(EXTRA)
    return "more options", set()


def fewer(rng: Random, words: list[str], folder: Path) -> tuple[str, set[str]]:
    """Leave out a word, repeat one, or change the order."""
    start = _first(words)
    if start == len(words):
        return more(rng, words, folder)
    place = rng.randrange(start, len(words))
    how = rng.choice(["left out", "repeated", "moved", "cut here"])
    if how == "left out":
        del words[place]
    elif how == "repeated":
        words.insert(place, words[place])
    elif how == "moved":
        words.insert(rng.randrange(start, len(words)), words.pop(place))
    else:
        del words[place:]
    return f"word {place} {how}", set()


def _output(words: list[str]) -> int | None:
    return next((place for place, word in enumerate(words) if word.startswith("out") and place > 1), None)


def odd_output(rng: Random, words: list[str], folder: Path) -> tuple[str, set[str]]:
    """Let the output be something that exists, cannot be written, or is one of the inputs."""
    place = _output(words)
    inputs = sorted(p for p in folder.rglob("*") if p.is_file())
    if place is None or not inputs:
        return odd_value(rng, words, folder)
    name = words[place]
    out = folder / name
    how = rng.choice(list(OUTPUTS))
    if rng.random() < 0.7:
        words.append("--overwrite")
    words[place], changes = OUTPUTS[how](out, rng.choice(inputs))
    words[place] = os.path.relpath(words[place], folder) if words[place].startswith(str(folder)) else words[place]
    return f"output: {how}", changes


def _exists(out: Path, other: Path) -> tuple[str, set[str]]:
    out.write_text("old")
    return str(out), {out.name}


def _folder(out: Path, other: Path) -> tuple[str, set[str]]:
    out.mkdir()
    (out / "old.txt").write_text("old")
    return str(out), set()


def _linked(out: Path, other: Path) -> tuple[str, set[str]]:
    target = out.with_name("target")
    target.write_text("old")
    out.symlink_to(target.name)
    return str(out), {out.name, target.name}


def _input_link(out: Path, other: Path) -> tuple[str, set[str]]:
    out.symlink_to(os.path.relpath(other, out.parent))
    return str(out), set()


def _input_hard_link(out: Path, other: Path) -> tuple[str, set[str]]:
    out.hardlink_to(other)  # an output takes the place of one name only: the input keeps its own
    return str(out), {out.name}


def _input_otherwise(out: Path, other: Path) -> tuple[str, set[str]]:
    return f"{other.parent}/../{other.parent.name}/{other.name}", set()


def _dangling(out: Path, other: Path) -> tuple[str, set[str]]:
    out.symlink_to("fresh")
    return str(out), {out.name}


def _device(device: str) -> Callable[[Path, Path], tuple[str, set[str]]]:
    def put(out: Path, other: Path) -> tuple[str, set[str]]:
        out.symlink_to(device)
        return str(out), set()

    return put


def _locked(out: Path, other: Path) -> tuple[str, set[str]]:
    (out.parent / "locked").mkdir(mode=0o500)
    return str(out.parent / "locked" / out.name), set()


OUTPUTS: dict[str, Callable[[Path, Path], tuple[str, set[str]]]] = {
    "exists": _exists,
    "a folder that is not empty": _folder,
    "a link to a file": _linked,
    "an input": lambda out, other: (str(other), set()),
    "an input by another path": _input_otherwise,
    "a link to an input": _input_link,
    "an input's hard link": _input_hard_link,
    "a dangling link": _dangling,
    "a link to a full device": _device("/dev/full"),
    "a link to nothing": _device("/dev/null"),
    "in a folder that cannot be written": _locked,
    "below a file": lambda out, other: (str(other / out.name), set()),
    "a name that is too long": lambda out, other: (str(out.with_name("x" * 300 + out.suffix)), set()),
    "a name of 255 bytes": lambda out, other: (str(out.with_name("x" * (255 - len(out.suffix)) + out.suffix)), set()),
    "not UTF-8": lambda out, other: (str(out.with_name("caf\udce9" + out.suffix)), set()),
    "in a new folder": lambda out, other: (str(out.parent / "new" / "er" / out.name), set()),
}

OPTIONS: dict[str, Callable[[Random, list[str], Path], tuple[str, set[str]]]] = {
    "value": odd_value,
    "another value": odd_value,
    "setting": setting,
    "more": more,
    "fewer": fewer,
    "output": odd_output,
}
