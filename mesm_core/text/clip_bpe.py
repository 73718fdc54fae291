"""CLIP's byte-pair tokenizer, from its merges file (Radford et al. 2021; Sennrich et al. 2016)."""

from __future__ import annotations

import gzip
import html
import importlib.util
import zlib
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import ftfy
import regex

from mesm_core.errors import TextError

MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"
# 49,408 tokens: 2 x 256 bytes, the merges, start and end.
MERGES = 49152 - 256 - 2
END_OF_WORD = "</w>"

_PATTERN = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


class ClipTokenizer:
    """Converts text to CLIP's token ids, without start and end tokens.

    Args:
        path: the merges file; default: the one in the package ``openai-clip``.

    Raises:
        TextError: there is no merges file, or it is damaged.

    >>> ClipTokenizer().encode("a person is putting a book on a shelf.")
    [320, 2533, 533, 5154, 320, 1116, 525, 320, 10955, 269]
    """

    def __init__(self, path: Path | None = None) -> None:
        merges = _read_merges(path or find_merges())
        characters = _byte_characters()
        vocabulary = [*characters.values(), *(c + END_OF_WORD for c in characters.values())]
        vocabulary += ["".join(pair) for pair in merges]
        self.start, self.end = len(vocabulary), len(vocabulary) + 1
        self._ids = {token: number for number, token in enumerate(vocabulary)}
        self._ids |= {"<|startoftext|>": self.start, "<|endoftext|>": self.end}
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._pieces = {number: token.removesuffix(END_OF_WORD) for token, number in self._ids.items()}
        self._characters = characters
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Return the ids of the text's tokens."""
        return [number for word in _PATTERN.findall(clean(text)) for number in self._word(word)]

    def piece(self, token: int) -> str:
        """Return a token's characters, without the mark of a word's end."""
        return self._pieces[token]

    def _word(self, word: str) -> list[int]:
        known = self._known.get(word)
        if known is None:
            if word in self._ids and word.startswith("<|"):
                known = [self._ids[word]]
            else:
                spelled = "".join(self._characters[byte] for byte in word.encode(errors="replace"))
                known = [self._ids[token] for token in self._merge(spelled)]
            self._known[word] = known
        return known

    def _merge(self, spelled: str) -> list[str]:
        parts = [*spelled[:-1], spelled[-1] + END_OF_WORD]
        lowest = len(self._ranks)
        while len(parts) > 1:
            pair = min(pairwise(parts), key=lambda p: self._ranks.get(p, lowest))
            if pair not in self._ranks:
                break
            parts = list(_joined(parts, pair))
        return parts


def clean(text: str) -> str:
    """Normalise text as CLIP does: fix mojibake, decode HTML entities, collapse white space, convert to lower case.

    >>> clean("Tom  &amp;amp; Jerry ")
    'tom & jerry'
    """
    fixed = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(fixed.split()).lower()


def find_merges() -> Path:
    """Return the merges file of the installed ``openai-clip``, without importing the package (it needs torchvision).

    Raises:
        TextError: it is not installed.
    """
    spec = importlib.util.find_spec("clip")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / MERGES_FILE
        if path.is_file():
            return path
    raise TextError(f"CLIP's merges file {MERGES_FILE} is missing.", hint="Run `pip install openai-clip`.")


def _read_merges(path: Path) -> list[tuple[str, str]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")[1 : MERGES + 1]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TextError(f"{path} cannot be read: {error}") from error
    pairs = [tuple(line.split()) for line in lines]
    merges = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
    if len(merges) != MERGES:
        raise TextError(f"{path} has {len(merges)} merges, CLIP's has {MERGES}.")
    return merges


def _joined(parts: list[str], pair: tuple[str, str]) -> Iterator[str]:
    index = 0
    while index < len(parts):
        if tuple(parts[index : index + 2]) == pair:
            yield "".join(pair)
            index += 2
        else:
            yield parts[index]
            index += 1


@cache
def _byte_characters() -> dict[int, str]:
    """Return a printable character for every byte, in the order of CLIP's vocabulary."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    table = {byte: chr(byte) for byte in printable}
    unprintable = [byte for byte in range(256) if byte not in table]
    return table | {byte: chr(256 + number) for number, byte in enumerate(unprintable)}
