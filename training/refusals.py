"""Refusals: what is said to a person whose choice can't be followed. Expected X; got Y. Did you mean Z?"""

import difflib
from collections.abc import Iterable


class ProblemError(ValueError):
    """A problem that can't be trained as its file says; the message says what to change."""


class UsageError(ValueError):
    """A choice on the command line that doesn't exist; the message lists those that do."""


class UnavailableError(RuntimeError):
    """Something that a training needs and that isn't there now; the message says what to do."""


def did_you_mean(value: object, allowed: Iterable[str]) -> str:
    """Suggest the closest allowed value.

    Returns:
        `` Did you mean 'x'?`` with its leading space, or nothing.
    """
    close = difflib.get_close_matches(str(value), list(allowed), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def expected(value: object, allowed: Iterable[str]) -> str:
    """Say what was expected, what came instead, and what was probably meant."""
    allowed = list(allowed)
    return f"expected one of {', '.join(allowed)}; got {value!r}.{did_you_mean(value, allowed)}"
