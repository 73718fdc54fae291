"""Word tokens and word weights, as NLTK gives them, without NLTK's downloads (docs/datasets.md, "Count files")."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from mesm_core.errors import ConfigError, TextError, did_you_mean

if TYPE_CHECKING:
    from nltk.tokenize.destructive import NLTKWordTokenizer

CONTENT_WEIGHT = 2
FUNCTION_WEIGHT = 1
# A Penn tag is a noun's, verb's, adjective's or adverb's if it contains one of these (wh-adverbs, WRB, count).
CONTENT_TAGS = ("NN", "VB", "JJ", "RB")

_PUNCTUATION_TO_SPACE = str.maketrans(string.punctuation, " " * len(string.punctuation))
# Sentences of plain words, commas and a full stop are tokenised here: importing nltk takes a second.
_WORD = r"[A-Za-z0-9]+(?:[-/][A-Za-z0-9]+)*(?:'s)?"
_PLAIN = re.compile(rf"{_WORD}(?:,? +{_WORD})* *\.? *")
_PLAIN_TOKEN = re.compile(r"'s|[A-Za-z0-9/-]+|[,.]")
# Words that the Treebank tokenizer takes apart though they hold no punctuation.
_FUSED = re.compile(r"\b(?:cannot|gimme|gonna|gotta|lemme|wanna)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(
    r"""(?<!\b[A-Za-z]\.)(?<!\b(?:Mr|Dr|St|vs)\.)(?<!\bMrs\.)(?<=[.?!])(["')\]]*)\s+(?=["'\[]*[A-Z]|\()"""
)


class Tagger(Protocol):
    """Splits a sentence into words and weighs them."""

    def tokens(self, sentence: str) -> list[str]:
        """Return the sentence's words, their case kept."""
        ...

    def weights(self, tokens: Sequence[str]) -> list[int]:
        """Return 2 for each noun, verb, adjective or adverb, 1 for each other word."""
        ...

    def prepare(self, sentences: Iterable[str]) -> None:
        """Load what splitting these sentences takes."""
        ...


class LexiconTagger:
    """NLTK's word tokens, and weights from a list of closed-class words: needs no download.

    >>> tagger = LexiconTagger()
    >>> tagger.tokens("She takes out a knife, then a board.")
    ['She', 'takes', 'out', 'a', 'knife', ',', 'then', 'a', 'board', '.']
    >>> tagger.weights(["She", "takes", "out", "a", "knife", "."])
    [1, 2, 1, 1, 2, 1]
    """

    def tokens(self, sentence: str) -> list[str]:
        """Return the sentence's words, their case kept."""
        if _is_plain(sentence):
            return _PLAIN_TOKEN.findall(sentence)
        tokenizer = _treebank()
        return [token for part in split_sentences(sentence) for token in tokenizer.tokenize(part)]

    def weights(self, tokens: Sequence[str]) -> list[int]:
        """Return 1 for closed-class words, numbers and punctuation, 2 for every other word."""
        closed = closed_class_words()
        return [
            FUNCTION_WEIGHT if word.lower() in closed or not any(map(str.isalpha, word)) else CONTENT_WEIGHT
            for word in tokens
        ]

    def prepare(self, sentences: Iterable[str]) -> None:
        """Import NLTK where a sentence needs it, lest that hold up the first training steps."""
        if not all(map(_is_plain, sentences)):
            _treebank()


class NltkTagger:
    """NLTK's tokenizer and perceptron tagger; their data must be installed.

    Raises:
        TextError: the data are missing; the message says what to install.
    """

    def __init__(self) -> None:
        import nltk

        for name, path in (
            ("punkt_tab", "tokenizers/punkt_tab/english"),
            ("averaged_perceptron_tagger_eng", "taggers/averaged_perceptron_tagger_eng"),
        ):
            try:
                nltk.data.find(path)
            except LookupError:
                raise TextError(
                    f"text.tagger = 'nltk' needs NLTK's '{name}' data, and it is not installed.",
                    hint="Run `python -m nltk.downloader punkt_tab averaged_perceptron_tagger_eng`, or point "
                    "$NLTK_DATA at a folder that holds them, or use --set text.tagger=lexicon.",
                ) from None
        self._tokenize = nltk.word_tokenize
        self._tag = nltk.pos_tag

    def tokens(self, sentence: str) -> list[str]:
        """Return the sentence's words, their case kept."""
        return list(self._tokenize(sentence))

    def weights(self, tokens: Sequence[str]) -> list[int]:
        """Return 2 for each word that the tagger calls a noun, verb, adjective or adverb, 1 for the rest."""
        return [
            CONTENT_WEIGHT if any(part in tag for part in CONTENT_TAGS) else FUNCTION_WEIGHT
            for _, tag in self._tag(list(tokens))
        ]

    def prepare(self, sentences: Iterable[str]) -> None:
        """Do nothing: all is loaded."""


TAGGERS: dict[str, type[LexiconTagger] | type[NltkTagger]] = {"lexicon": LexiconTagger, "nltk": NltkTagger}


def make_tagger(name: str) -> Tagger:
    """Return the tagger of that name.

    Raises:
        ConfigError: there is none.
        TextError: it needs data that are not installed.
    """
    if name not in TAGGERS:
        raise ConfigError(f"No tagger is called '{name}'.{did_you_mean(name, TAGGERS)}")
    return TAGGERS[name]()


def count_words(sentence: str) -> list[str]:
    """Return the words that count files count: lower case, ASCII punctuation as spaces.

    >>> count_words("He's got the knife/board.")
    ['he', 's', 'got', 'the', 'knife', 'board']
    """
    return sentence.lower().translate(_PUNCTUATION_TO_SPACE).split()


def split_sentences(text: str) -> list[str]:
    """Return the text's sentences: cut after ``.``, ``?`` or ``!`` where a capital follows.

    >>> split_sentences("He opens it.  She cuts 2.5 cm. of leek.")
    ['He opens it.', 'She cuts 2.5 cm. of leek.']
    >>> split_sentences('"Stop!" She did. (Twice.)')
    ['"Stop!"', 'She did.', '(Twice.)']
    """
    cuts = [match.end(1) for match in _SENTENCE_END.finditer(text)]
    return [part for start, end in pairwise([0, *cuts, len(text)]) if (part := text[start:end].strip())]


@cache
def closed_class_words() -> frozenset[str]:
    """Return the shipped list of function words, lower-cased."""
    text = resources.files("mesm_core.text").joinpath("closed_class.txt").read_text(encoding="utf-8")
    return frozenset(text.split())


def _is_plain(sentence: str) -> bool:
    return _PLAIN.fullmatch(sentence) is not None and not _FUSED.search(sentence)


@cache
def _treebank() -> NLTKWordTokenizer:
    from nltk.tokenize.destructive import NLTKWordTokenizer

    return NLTKWordTokenizer()
