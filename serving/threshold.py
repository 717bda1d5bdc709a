"""Threshold: from which probability on a model of two classes says the positive one, and what that means."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

_OF = 1_000


@dataclass(frozen=True)
class Flagged:
    """Rows that are said to be positive.

    Attributes:
        rows: How many there are.
        right: How many of them are positive.
    """

    rows: int
    right: int


@dataclass(frozen=True)
class Threshold:
    """A threshold chosen for costs, and what came of it on the holdout (a part of `profile.json`).

    Attributes:
        positive: The positive class.
        value: The least probability of it with which it is said.
        positive_cost: What it costs to miss a positive row.
        negative_cost: What a false alarm costs.
        rows: Rows of the holdout.
        positives: How many of them are positive.
        here: What is flagged at this threshold.
        half: What would be at 0.5.
    """

    positive: str
    value: float
    positive_cost: float
    negative_cost: float
    rows: int
    positives: int
    here: Flagged
    half: Flagged

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Self:
        """Read what `written` made."""
        return cls(**{**found, "here": Flagged(**found["here"]), "half": Flagged(**found["half"])})

    def written(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @property
    def none(self) -> Flagged:
        """What is flagged by doing nothing."""
        return Flagged(0, 0)

    @property
    def all(self) -> Flagged:
        """What is flagged by flagging every row."""
        return Flagged(self.rows, self.positives)

    def cost(self, flagged: Flagged) -> float:
        """Return what it costs to flag these rows, for `_OF` rows like those of the holdout."""
        missed, false = self.positives - flagged.right, flagged.rows - flagged.right
        return (missed * self.positive_cost + false * self.negative_cost) * _OF / self.rows

    def share(self, rows: int) -> float:
        """Return how many of `_OF` rows that would be."""
        return rows * _OF / self.rows

    @property
    def rule(self) -> str:
        """When it says what, in a sentence."""
        return (
            f"{self.positive} is predicted from a probability of {self.value:.1%} on, because a missed one "
            f"costs {self.positive_cost:,g} and a false alarm {self.negative_cost:,g}."
        )

    @property
    def meaning(self) -> str:
        """What that means in rows, in a sentence."""
        missed = self.share(self.positives - self.here.right)
        costs = (f"{self.cost(way):,.0f}" for way in (self.here, self.half, self.none, self.all))
        here, half, none, every = costs
        return (
            f"Of {_OF:,} rows like the {self.rows:,} of the holdout, {self.share(self.here.rows):.0f} are "
            f"flagged, {self.share(self.here.right):.0f} of them rightly, and {missed:.0f} are missed. That "
            f"costs {here}, instead of {half} at a threshold of 50%, {none} if none is flagged, and {every} "
            "if all are."
        )
