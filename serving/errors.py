"""What is said to a caller instead of an answer: one shape, with MLflow's names for its first two keys."""

from dataclasses import asdict, dataclass

MAX_FIELDS = 20


@dataclass(frozen=True, order=True)
class Field:
    """One thing that is wrong: where, and why. `row` counts from 0, None when it is all of them."""

    field: str
    row: int | None
    reason: str


class ServingError(Exception):
    """No answer, and the caller is told why.

    Args:
        message: What is wrong and what to do, in a sentence or two; without the values that were sent.
        status: The HTTP status.
        code: MLflow's error code, or one of ours where it has none.
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
        """The answer's JSON; a name from the caller may hold anything, so it is cut."""
        return {
            "error_code": self.code,
            "message": self.message[:2000],
            "fields": [asdict(f) | {"field": f.field[:200]} for f in self.fields[:MAX_FIELDS]],
        }


def bad_fields(fields: list[Field]) -> ServingError:
    """Columns or values that the model's signature does not allow."""
    shown = "; ".join(
        f"{f.field[:200]!r}{'' if f.row is None else f' in row {f.row}'} {f.reason}" for f in fields[:5]
    )
    more = f"; and {len(fields) - 5} more" if len(fields) > 5 else ""
    return ServingError(
        f"The input does not fit the model: {shown}{more}.", 400, "INVALID_PARAMETER_VALUE", tuple(fields)
    )


def too_large(message: str) -> ServingError:
    """More than the service takes at once."""
    return ServingError(message, 413, "PAYLOAD_TOO_LARGE")


def unsupported(message: str) -> ServingError:
    """A media type, charset or encoding that it does not speak."""
    return ServingError(message, 415, "UNSUPPORTED_MEDIA_TYPE")
