"""Data drift: how far the rows that a model is asked about are from those it was trained on. Pure.

Two measures for each column. The population stability index compares shares of bins:

    PSI = sum over bins of (actual - expected) * ln(actual / expected)

    Siddiqi, N. (2006): Credit Risk Scorecards, chapter 7, with the usual reading: below 0.1 stable, 0.1 to
    0.25 some change, above 0.25 a change that asks for action.

Of few rows, PSI is large by chance alone. Times 1 / (1/n + 1/m) it is nearly chi-squared distributed with one
degree of freedom less than there are bins, if nothing drifted; below that distribution's 99 % point it is
attributed to chance here.

    Yurdakul, B. and Naranjo, J. (2020): Statistical properties of the population stability index, Journal of
    Risk Model Validation 14(4).

The two-sample Kolmogorov-Smirnov statistic is the largest distance between the two cumulative shares, for
numbers and dates only; it needs no bins, and sees a shift within one. Of free text, both look at the number
of words.

    Hodges, J. L. (1958): The significance probability of the Smirnov two-sample test, Arkiv foer Matematik
    3(43), for its p-value: the asymptotic one, by Kolmogorov's distribution.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import chdtri, kolmogorov  # type: ignore[import-untyped]

from serving.profile import Profile, Seen, moment, word_counts

type Verdict = Literal["drifted", "changed", "stable", "too few"]

ENOUGH = 30  # rows; below, no bin of ten would hold three
_CHANGED, _DRIFTED = 0.1, 0.25
_CHANCE = 0.01
_LEVELS = 20  # further levels are one bin: rare ones come and go
_FLOOR = 1e-4  # a bin that is empty on one side counts as this share, for the logarithm, or as half a row


@dataclass(frozen=True)
class Drift:
    """The drift of one column.

    Attributes:
        name: The column.
        verdict: In a word.
        text: In a sentence.
        psi: The population stability index.
        chance: What PSI stays below in 99 of 100 cases in which nothing drifted.
        ks: The Kolmogorov-Smirnov statistic; None for texts and booleans.
        p_value: How likely so large a statistic is if nothing drifted.
        bins: Name of each bin, its share in training, its share now.
    """

    name: str
    verdict: Verdict
    text: str
    psi: float
    chance: float
    ks: float | None
    p_value: float | None
    bins: tuple[tuple[str, float, float], ...]


def columns_drift(rows: pd.DataFrame, profile: Profile) -> tuple[Drift, ...]:
    """Compare each column with what the training rows held of it.

    Args:
        rows: What was asked, as it was logged.
        profile: What the model was trained on.

    Returns:
        One for each column that is in both, most drifted first.
    """
    known = [(name, seen) for name, seen in profile.seen.items() if name in rows]
    found = [_column(name, rows[name], seen, profile.rows) for name, seen in known]
    order: list[Verdict] = ["drifted", "changed", "stable", "too few"]
    return tuple(sorted(found, key=lambda drift: (order.index(drift.verdict), -drift.psi)))


def psi(expected: np.ndarray, actual: np.ndarray, floor: float = _FLOOR) -> float:
    """Return the population stability index of two lists of shares of the same bins.

    Args:
        expected: Shares in training.
        actual: Shares now.
        floor: What an empty bin counts as.
    """
    expected, actual = (np.maximum(shares, floor) for shares in (expected, actual))
    return float(np.sum((actual - expected) * np.log(actual / expected)))


def ks(sample: np.ndarray, values: np.ndarray) -> float:
    """Return the two-sample Kolmogorov-Smirnov statistic; 0 where one side is empty."""
    if not len(sample) or not len(values):
        return 0.0
    sample, values = np.sort(sample), np.sort(values)
    at = np.concatenate([sample, values])
    shares = (np.searchsorted(side, at, side="right") / len(side) for side in (sample, values))
    first, second = shares
    return float(np.abs(first - second).max())


def ks_p_value(statistic: float, rows: int, others: int) -> float:
    """Return the probability of a statistic at least this large if both sides share one distribution."""
    return float(kolmogorov(statistic * np.sqrt(rows * others / (rows + others)))) if rows and others else 1.0


def _column(name: str, values: pd.Series, seen: Seen, trained: int) -> Drift:
    present, rows = values.dropna(), len(values)
    statistic = p_value = middle = None
    if seen.kind in ("category", "boolean"):
        names, expected, counts = _levels(present, seen)
        known = len(present)
    else:
        numbers = _numbers(present, seen)
        known = len(numbers)
        names, expected, counts = _bins(numbers, seen)
        statistic = ks(np.array(seen.sample), numbers)
        p_value = ks_p_value(statistic, round(trained * (1 - seen.missing)), known)
        middle = float(np.median(numbers)) if known and seen.kind != "date" else None
    # Missing values are a bin as well, because their share can drift.
    names, expected = [*names, "missing"], np.append(expected, seen.missing)
    actual = np.append(counts, rows - known) / max(1, rows)
    index = psi(expected, actual, max(_FLOOR, 0.5 / max(1, rows)))
    bins = int(((expected > 0) | (actual > 0)).sum())
    chance = float(chdtri(max(1, bins - 1), _CHANCE)) * (1 / max(1, rows) + 1 / max(1, trained))
    shifted = statistic is not None and statistic >= _CHANGED and (p_value or 0.0) < _CHANCE
    verdict = _verdict(index, chance, rows, shifted=shifted)
    pairs = tuple(zip(names, expected.tolist(), actual.tolist(), strict=True))
    what = "median number of words" if seen.kind == "text" else "median"
    text = _sentence(verdict, pairs, None if middle is None else (middle, seen.median), what)
    return Drift(name, verdict, text, index, chance, statistic, p_value, pairs)


def _verdict(index: float, chance: float, rows: int, *, shifted: bool) -> Verdict:
    if rows < ENOUGH:
        return "too few"
    if index > max(_DRIFTED, chance):
        return "drifted"
    return "changed" if index > max(_CHANGED, chance) or shifted else "stable"


def _numbers(present: pd.Series, seen: Seen) -> np.ndarray:
    """Return logged values as numbers: dates, which were logged as text, and the words of free text.

    Other values are left out.
    """
    if seen.kind == "text":
        return word_counts(map(str, present))
    if seen.kind == "date":
        dates = pd.to_datetime(present.astype(str), errors="coerce", utc=True, format="ISO8601").dropna()
        return np.asarray((dates - pd.Timestamp(0, tz="UTC")).dt.total_seconds(), dtype=float)
    numbers = np.asarray(pd.to_numeric(present, errors="coerce"), dtype=float)
    return numbers[np.isfinite(numbers)]


def _bins(numbers: np.ndarray, seen: Seen) -> tuple[list[str], np.ndarray, np.ndarray]:
    counts = np.bincount(np.searchsorted(seen.edges, numbers, side="left"), minlength=len(seen.edges) + 1)
    ends = [f"{moment(edge):%Y-%m-%d}" if seen.kind == "date" else f"{edge:.4g}" for edge in seen.edges]
    if not ends:  # no training row had a value
        return ["any"], np.zeros(1), counts
    between = [f"{low} to {high}" for low, high in pairwise(ends)]
    return [f"up to {ends[0]}", *between, f"above {ends[-1]}"], np.array(seen.shares), counts


def _levels(present: pd.Series, seen: Seen) -> tuple[list[str], np.ndarray, np.ndarray]:
    texts = (str(value).lower() if isinstance(value, bool) else str(value) for value in present)
    counts = Counter(texts)
    names = list(seen.levels)[:_LEVELS]
    held = [counts[name] for name in names]
    rest = sum(list(seen.levels.values())[_LEVELS:]) + seen.other
    expected = [*(seen.levels[name] for name in names), rest]
    return [*names, "other"], np.array(expected), np.array([*held, len(present) - sum(held)])


def _sentence(
    verdict: Verdict,
    bins: Sequence[tuple[str, float, float]],
    middle: tuple[float, float | None] | None,
    what: str,
) -> str:
    if verdict == "too few":
        return f"Fewer than {ENOUGH} rows are too few to tell."
    if verdict == "stable":
        return "As in training."
    name, expected, actual = max(bins, key=lambda bin_: abs(bin_[2] - bin_[1]))
    text = f"“{name}” is {actual:.0%} of the rows now; it was {expected:.0%} in training."
    if middle is not None and middle[1] is not None:
        text = f"The {what} is {middle[0]:.4g} now; it was {middle[1]:.4g} in training. {text}"
    return text
