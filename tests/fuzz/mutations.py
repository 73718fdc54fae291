"""One thing wrong with one input: which mutations fit which kind of file."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz import arrays, damage, options, values, weights
from tests.fuzz.commands import Command
from tests.fuzz.damage import Mutator

CHECKPOINT = (weights.bad_checkpoint, weights.bad_checkpoint, weights.bad_checkpoint, arrays.bad_zip)
KINDS: dict[str, tuple[Mutator, ...]] = {
    ".npy": (arrays.bad_npy,),
    ".npz": (arrays.bad_npz, arrays.bad_npz, arrays.bad_zip),
    ".hdf5": (arrays.bad_hdf5,),
    ".h5": (arrays.bad_hdf5,),
    ".zip": (arrays.bad_zip,),
    ".json": (values.bad_json, values.bad_json, values.bad_json, damage.byte_order_mark),
    ".jsonl": (*(values.bad_json_line,) * 3, damage.byte_order_mark, damage.bad_lines),
    ".toml": (values.bad_toml, values.bad_toml, values.bad_toml, damage.byte_order_mark),
    ".pt": CHECKPOINT,
    ".pth": CHECKPOINT,
    ".ckpt": CHECKPOINT,
    ".safetensors": (weights.bad_safetensors,),
    ".pkl": (weights.bad_pickle,),
    ".gz": (damage.bad_gzip, damage.bad_gzip_line, damage.bad_gzip_line),
    ".txt": damage.TEXT,
    ".csv": damage.TEXT,
}  # fmt: skip


@dataclass
class Case:
    """A command line with something wrong: its words, what was done, and the old files that it may replace."""

    command: Command
    words: list[str]
    done: list[str] = field(default_factory=list)
    changes: set[str] = field(default_factory=set)


def prepare(rng: Random, command: Command, inputs: Path, folder: Path, *, sound: bool = False) -> Case:
    """Copy a command's inputs into ``folder`` and make something wrong with them, or with its words.

    Args:
        inputs: what ``write_inputs`` wrote; sound: leave everything as it is.
    """
    for name in command.inputs:
        source, target = inputs / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)
    case = Case(command, [*command.words])
    if not sound:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        what = rng.choices(["file", "words", "both"], [60, 35, 5] if files else [0, 1, 0])[0]
        if what != "words":
            case.done.append(_damaged(rng, rng.choice(files), folder))
        if what != "file":
            done, changes = options.odd_options(rng, case.words, folder)
            case.done.append(done)
            case.changes |= changes
    case.words += command.last_words
    case.words = [word.replace("\0", "") for word in case.words]  # no program can be given them
    return case


def _damaged(rng: Random, path: Path, folder: Path) -> str:
    """Change a file, by what fits its kind rather than by its bytes."""
    fitting = KINDS.get(path.suffix, ())
    mutate = rng.choice(fitting if fitting and rng.random() < 0.7 else damage.ANY)
    before = path.read_bytes()
    try:
        done = mutate(rng, path)
    except (AttributeError, KeyError, OverflowError, RuntimeError, TypeError, UnicodeError, ValueError) as error:
        # The library does not store such a thing.
        path.unlink(missing_ok=True)
        path.write_bytes(before)
        done = f"{mutate.__name__} could not ({type(error).__name__}), so {damage.flip(rng, path)}"
    return f"{os.path.relpath(path, folder)}: {done}"
