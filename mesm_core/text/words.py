"""Tokens and weights of words, compatible with NLTK but without its downloads (docs/datasets.md, "Count files")."""

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
# Penn tags of nouns, verbs, adjectives and adverbs (including WRB) contain one of these.
CONTENT_TAGS = ("NN", "VB", "JJ", "RB")

_PUNCTUATION_TO_SPACE = str.maketrans(string.punctuation, " " * len(string.punctuation))
# Simple sentences (words, commas, a full stop) are tokenised here, because importing nltk takes a second.
_WORD = r"[A-Za-z0-9]+(?:[-/][A-Za-z0-9]+)*(?:'s)?"
_PLAIN = re.compile(rf"{_WORD}(?:,? +{_WORD})* *\.? *")
_PLAIN_TOKEN = re.compile(r"'s|[A-Za-z0-9/-]+|[,.]")
# Words without punctuation that the Treebank tokenizer splits.
_FUSED = re.compile(r"\b(?:cannot|gimme|gonna|gotta|lemme|wanna)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(
    r"""(?<!\b[A-Za-z]\.)(?<!\b(?:Mr|Dr|St|vs)\.)(?<!\bMrs\.)(?<=[.?!])(["')\]]*)\s+(?=["'\[]*[A-Z]|\()"""
)


class Tagger(Protocol):
    """Splits sentences into words, and assigns a weight to each word."""

    def tokens(self, sentence: str) -> list[str]:
        """Return the words of a sentence, with their case preserved."""
        ...

    def weights(self, tokens: Sequence[str]) -> list[int]:
        """Return 2 for each noun, verb, adjective or adverb, 1 for each other word."""
        ...

    def prepare(self, sentences: Iterable[str]) -> None:
        """Load the resources needed to tokenise these sentences."""
        ...


class LexiconTagger:
    """NLTK's word tokens, with weights from a list of closed-class words. Needs no download.

    >>> tagger = LexiconTagger()
    >>> tagger.tokens("She takes out a knife, then a board.")
    ['She', 'takes', 'out', 'a', 'knife', ',', 'then', 'a', 'board', '.']
    >>> tagger.weights(["She", "takes", "out", "a", "knife", "."])
    [1, 2, 1, 1, 2, 1]
    """

    def tokens(self, sentence: str) -> list[str]:
        """Return the words of a sentence, with their case preserved."""
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
        """Import NLTK now if a sentence needs it, so that the import does not delay the first training steps."""
        if not all(map(_is_plain, sentences)):
            _treebank()


class NltkTagger:
    """NLTK's tokenizer and perceptron tagger, whose data must be installed.

    Raises:
        TextError: the data is missing; the message says what to install.
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
        """Return the words of a sentence, with their case preserved."""
        return list(self._tokenize(sentence))

    def weights(self, tokens: Sequence[str]) -> list[int]:
        """Return 2 for each word tagged as noun, verb, adjective or adverb, and 1 for other words."""
        return [
            CONTENT_WEIGHT if any(part in tag for part in CONTENT_TAGS) else FUNCTION_WEIGHT
            for _, tag in self._tag(list(tokens))
        ]

    def prepare(self, sentences: Iterable[str]) -> None:
        """Do nothing; the resources are already loaded."""


TAGGERS: dict[str, type[LexiconTagger] | type[NltkTagger]] = {"lexicon": LexiconTagger, "nltk": NltkTagger}


def make_tagger(name: str) -> Tagger:
    """Return the tagger with the given name.

    Raises:
        ConfigError: there is none with that name.
        TextError: its data is not installed.
    """
    if name not in TAGGERS:
        raise ConfigError(f"No tagger is called '{name}'.{did_you_mean(name, TAGGERS)}")
    return TAGGERS[name]()


def count_words(sentence: str) -> list[str]:
    """Return words as counted in count files: in lower case, with ASCII punctuation replaced by spaces.

    >>> count_words("He's got the knife/board.")
    ['he', 's', 'got', 'the', 'knife', 'board']
    """
    return sentence.lower().translate(_PUNCTUATION_TO_SPACE).split()


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences after ``.``, ``?`` or ``!`` if a capital letter follows.

    >>> split_sentences("He opens it.  She cuts 2.5 cm. of leek.")
    ['He opens it.', 'She cuts 2.5 cm. of leek.']
    >>> split_sentences('"Stop!" She did. (Twice.)')
    ['"Stop!"', 'She did.', '(Twice.)']
    """
    cuts = [match.end(1) for match in _SENTENCE_END.finditer(text)]
    return [part for start, end in pairwise([0, *cuts, len(text)]) if (part := text[start:end].strip())]


@cache
def closed_class_words() -> frozenset[str]:
    """Return the included list of function words, in lower case."""
    text = resources.files("mesm_core.text").joinpath("closed_class.txt").read_text(encoding="utf-8")
    return frozenset(text.split())


def _is_plain(sentence: str) -> bool:
    return _PLAIN.fullmatch(sentence) is not None and not _FUSED.search(sentence)


@cache
def _treebank() -> NLTKWordTokenizer:
    from nltk.tokenize.destructive import NLTKWordTokenizer

    return NLTKWordTokenizer()
