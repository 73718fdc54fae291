"""The seeds of a family of runs, as given on the command line."""

from __future__ import annotations

from mesm_core.errors import ConfigError

MOST_RUNS = 100
LARGEST_SEED = 2**63 - 1
EXAMPLES = "A count, e.g. --seeds 3, or a list, e.g. --seeds 2019,7,8."


def parse_seeds(text: str, first: int) -> tuple[int, ...]:
    """Return the seeds of a family: a count of consecutive seeds from ``first`` on, or a list.

    >>> parse_seeds("3", 2019)
    (2019, 2020, 2021)
    >>> parse_seeds("2019, 7,8", 2019)
    (2019, 7, 8)

    Raises:
        ConfigError: the text is neither, a seed is repeated or out of range, or there are fewer than two seeds or more
            than ``MOST_RUNS``.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words) or len(text) > MOST_RUNS * 20:
        raise ConfigError(f"--seeds takes whole numbers from 0, not '{text[:40]}'.", hint=EXAMPLES)
    numbers = [int(word) for word in words]
    if len(numbers) == 1:
        _check_number_of_runs(numbers[0], text)
        numbers = list(range(first, first + numbers[0]))
    repeated = [number for place, number in enumerate(numbers) if number in numbers[:place]]
    if repeated:
        raise ConfigError(
            f"--seeds repeats {repeated[0]}: the same seed gives the same run.", hint="Give each seed once."
        )
    _check_number_of_runs(len(numbers), text)
    if max(numbers) > LARGEST_SEED:
        raise ConfigError(f"--seeds: {max(numbers)} is too large; seeds are below 2^63.")
    return tuple(numbers)


def _check_number_of_runs(runs: int, text: str) -> None:
    if runs > MOST_RUNS:
        raise ConfigError(
            f"--seeds {text[:40]} means {runs} runs; at most {MOST_RUNS} are allowed.",
            hint=f"For one run with this seed, use --set train.seed={text}." if text.isdigit() else EXAMPLES,
        )
    if runs < 2:
        raise ConfigError(
            f"--seeds {text} means {runs} run{'s' if runs != 1 else ''}; a family has at least 2.",
            hint="For one run, use --set train.seed=N.",
        )
