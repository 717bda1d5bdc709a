"""Errors that are reported instead of an answer.

`ServingError` is a refusal with an HTTP status: one shape, with MLflow's names for its first two keys. The
others say why a model can't be found, loaded or asked; app, REST service and trainer each show them in their
own way.
"""

from dataclasses import asdict, dataclass

MAX_FIELDS = 20


@dataclass(frozen=True, order=True)
class Field:
    """One thing that is wrong: where, and why. `row` counts from 0; None means the whole column."""

    field: str
    row: int | None
    reason: str


class ExplainedError(Exception):
    """An error with a message for people.

    Args:
        message: What was expected, what was found, and what to do.
        detail: The technical cause, for the operator.
    """

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class RegistryAwayError(ExplainedError):
    """MLflow can't be reached, or refuses to answer."""


class AbsentError(ExplainedError):
    """MLflow answers that it has no such thing."""


class ArtifactsUnreachableError(ExplainedError):
    """Files that MLflow does not hand out itself."""


class ModelUnusableError(ExplainedError):
    """A version that can't be loaded, or does not answer."""


class PredictionError(ExplainedError):
    """A model that failed to predict."""


class ServingError(Exception):
    """A refused request, with the reason for the caller.

    Args:
        message: What is wrong and what to do, in a sentence or two; without the values that were sent.
        status: The HTTP status.
        code: MLflow's error code, or one of our own where it has none.
        fields: What is wrong with which column and row.
        retry_after: Seconds after which to try again.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        code: str = "BAD_REQUEST",
        fields: tuple[Field, ...] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.fields = fields
        self.retry_after = retry_after

    def body(self) -> dict[str, object]:
        """Return the answer's JSON; a name from the caller may hold anything, so it is cut."""
        return {
            "error_code": self.code,
            "message": self.message[:2000],
            "fields": [asdict(f) | {"field": f.field[:200]} for f in self.fields[:MAX_FIELDS]],
        }


def bad_fields(fields: list[Field]) -> ServingError:
    """Refuse columns or values that the model's signature does not allow."""
    shown = "; ".join(
        f"{f.field[:200]!r}{'' if f.row is None else f' in row {f.row}'}: {f.reason}" for f in fields[:5]
    )
    more = f"; and {len(fields) - 5} more" if len(fields) > 5 else ""
    return ServingError(
        f"The input does not fit the model: {shown}{more}.", 400, "INVALID_PARAMETER_VALUE", tuple(fields)
    )


def too_large(message: str) -> ServingError:
    """Refuse more than the service takes at once."""
    return ServingError(message, 413, "PAYLOAD_TOO_LARGE")


def unsupported(message: str) -> ServingError:
    """Refuse a media type, charset or encoding that the service does not support."""
    return ServingError(message, 415, "UNSUPPORTED_MEDIA_TYPE")


def said(error: Exception) -> str:
    """Return an exception as one line that fits on a page."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:400]
