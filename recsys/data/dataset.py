"""The prepared data set: what `recsys prepare` writes and all later steps read. `docs/architecture.md` draws it."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from recsys.config.base import Config, Many
from recsys.data.config import SampledNegatives
from recsys.schema.config import Role, SchemaConfig, Transform

FORMAT = 1
MISSING = 0
"""The id of a missing value, and of padding."""
Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
HISTORIES_OF_TRAINING = frozenset({"random", "cold_items"})
"""Kinds of split after which histories hold training events only: held-out ones would else stand in the histories of
others."""
STAGES = {"train": 0, "valid": 1, "test": 2, "context": 3}
"""Stage of an event; `context` events (earlier ones of held-out users, or from before the training of a temporal split)
stand in histories and are never predicted.
"""


class _Info(Config):
    role: Role
    input: bool = True
    """Whether the model reads it."""


class CategoricalInfo(_Info):
    """A feature encoded by a vocabulary: 0 missing, then `oov_rows` OOV ids, then the values by falling train count."""

    kind: Literal["categorical"] = "categorical"
    rows: int
    """Number of ids: 1 + oov_rows + size of the vocabulary."""
    oov_rows: int
    max_length: int | None = None
    """Set for multi-valued features."""


class FingerprintInfo(_Info):
    """A feature encoded by `recsys.data.encoding.fingerprint`: 0 missing, otherwise 1 .. 2**63 - 1."""

    kind: Literal["fingerprint"] = "fingerprint"
    max_length: int | None = None


class SequenceInfo(Config):
    """A history of the values of feature `of`."""

    kind: Literal["sequence"] = "sequence"
    role: Literal["user"] = "user"
    input: Literal[True] = True
    of: str
    max_length: int
    age: bool


class NumericInfo(_Info):
    """A number, stored raw (float32, NaN for missing); the model's graph transforms it by these training statistics."""

    kind: Literal["numeric"] = "numeric"
    transform: Transform
    mean: float
    """Mean over the training rows, after the logarithm of those that have one."""
    std: float
    """Standard deviation, likewise; 1 for a constant column."""
    boundaries: Many[float] = ()
    """Strictly rising quantiles, for `bucketize`: the id is 0 for missing, else 1 + number of boundaries <= x. For
    `log_squared_buckets` whole numbers, and x is the number after that transform."""


class VectorInfo(_Info):
    """A given dense embedding."""

    kind: Literal["vector"] = "vector"
    dim: int


FeatureInfo = Annotated[
    CategoricalInfo | FingerprintInfo | SequenceInfo | NumericInfo | VectorInfo, Field(discriminator="kind")
]


class LabelInfo(Config):
    """A further label: of how many training examples it is known, and of how many it is 1."""

    known: int
    positive: int


def label_column(name: str) -> str:
    """The column of the examples that holds a further label: 0, 1 or NaN for unknown. No feature can have this name."""
    return f"label.{name}"


class Counts(Config):
    """Sizes of everything."""

    users: int
    items: int
    events: int
    """Positive events: the rows of `events/`."""
    train: int
    """Examples, sampled negatives included."""
    valid: int
    test: int
    dropped: int
    """Raw events that were neither positive nor negative."""
    held_back: int = 0
    """Events after the test part of a temporal split, which stand nowhere."""


class Suspicion(Config):
    """A numeric user or item feature that equals a statistic of the whole raw log, dropped events included."""

    feature: str
    statistic: str
    """In words: `number of events`."""
    share: float
    """Of how many users or items it does, among those for whom the held-out events change the statistic."""
    compared: int
    """The number of those."""


class DatasetInfo(Config):
    """`dataset.json`."""

    format: Literal[1] = 1
    name: str
    digest: str
    """SHA-256 over the data and schema config, the source files' contents and the format: the cache key."""
    table_schema: SchemaConfig
    features: dict[str, FeatureInfo]
    labels: dict[str, LabelInfo] = Field(default_factory=dict)
    """Further labels of the examples."""
    counts: Counts
    split: str
    """Kind of split."""
    sampled_negatives: SampledNegatives | None = None
    """How the examples of label 0 were drawn; None: they are events."""
    has_time: bool
    rows_per_group: int
    suspicions: Many[Suspicion] = ()
    """Features that seem to know the future; the evaluation decides what becomes of them."""

    @property
    def known_labels(self) -> dict[str, float]:
        """Of what share of the training examples each further label is known."""
        return {name: label.known / self.counts.train for name, label in self.labels.items()}

    @property
    def inputs(self) -> dict[str, FeatureInfo]:
        """The features that the model reads."""
        return {name: info for name, info in self.features.items() if info.input}
