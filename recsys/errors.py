"""What can go wrong by a user's hand, and how it is said.

Every error a user can cause is a `RecsysError` made of one or more `Problem`s: the place, what was found there, what
was expected and the cure. The command line prints one line a problem and exits non-zero; anything else that escapes
is a bug.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, in the words of the person who has to mend it."""

    place: str
    """Where: `configs/x.yaml:12: model.kind`, a file, a column of a file, an option of a command."""
    found: str
    """What stands there."""
    expected: str = ""
    """What would be right."""
    cure: str = ""
    """What to do about it."""

    def __str__(self) -> str:
        parts = [f"{self.place}: {self.found}"]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.cure:
            parts.append(self.cure)
        return " ".join("; ".join(parts).split())


class RecsysError(Exception):
    """A mistake that the user can cure.

    >>> print(DataError("events.parquet: column 'rating'", "3 labels are NaN", cure="drop these rows"))
    events.parquet: column 'rating': 3 labels are NaN; drop these rows
    """

    def __init__(self, place: str | Iterable[Problem], found: str = "", expected: str = "", cure: str = "") -> None:
        self.problems: tuple[Problem, ...] = (
            (Problem(place, found, expected, cure),) if isinstance(place, str) else tuple(place)
        )
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[RecsysError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class ConfigError(RecsysError):
    """The YAML, an override or a command's option is wrong."""


class SchemaError(RecsysError):
    """The schema and the data do not fit each other."""


class DataError(RecsysError):
    """The data themselves are wrong: missing, unreadable, NaN where no NaN may be."""


class TrainingError(RecsysError):
    """Training cannot go on: a loss that is not finite, a run directory of another experiment."""


class SearchError(RecsysError):
    """No plan keeps the promise."""


class ExportError(RecsysError):
    """The model may not be exported: a promise is not kept."""


class BundleError(RecsysError):
    """A bundle is missing, incomplete, altered or made for other versions."""


class RequestError(RecsysError):
    """A request does not fit the bundle's schema, or names an unknown user."""


class TrackingError(RecsysError):
    """A tracker cannot be told of a run."""


class InstallError(RecsysError):
    """The installed libraries do not fit each other."""
