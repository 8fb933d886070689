"""What a feature is: its kind, whom it describes, how its raw values are read.

The schema speaks of meaning only; widths and tables belong to `embeddings`. Feature names are the keys of
`SchemaConfig.features`; raw values come from the column of that name unless `column` says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from recsys.config.base import Config, Misfit, default_tag, misfits

Entity = Literal["user", "item"]
"""Whom an event log may name."""
Role = Literal["user", "item", "context"]
"""Whom a feature describes. `user` and `item` features are one value per user or item (taken from the users or items
table, or else from the latest training event that names them, or else from the earliest event: a value that changes in
time should be a context feature); `context` features are one value per event."""


class VocabularyEncoding(Config):
    """Ids by a vocabulary of the values that the training part holds."""

    kind: Literal["vocabulary"] = "vocabulary"
    min_count: PositiveInt = 1
    """A value needs this many training rows to get an id of its own."""
    oov_rows: PositiveInt = 1
    """Values outside the vocabulary share this many ids, chosen by hash."""


class HashEncoding(Config):
    """No vocabulary: a 63-bit fingerprint of the value, for tables that hash."""

    kind: Literal["hash"] = "hash"


Encoding = Annotated[VocabularyEncoding | HashEncoding, Field(discriminator="kind"), default_tag("kind", "vocabulary")]


class _Feature(Config):
    role: Role
    """Whom the feature describes: user, item or context."""
    column: str | None = None
    """The raw column; the feature's own name by default."""
    input: bool = True
    """Whether the model reads it; a feature that it does not read can still slice an evaluation."""


class Categorical(_Feature):
    """One value out of many. Integers and booleans are read as text; null and "" mean missing."""

    kind: Literal["categorical"]
    encoding: Encoding = VocabularyEncoding()


class MultiValued(_Feature):
    """A set of values: a list column, or text with a separator."""

    kind: Literal["multi_valued"]
    separator: str | None = Field(default=None, min_length=1)
    """Splits a text column; leave it out for list columns."""
    max_length: PositiveInt = 16
    """Values after this many (in the order of the data) are left out."""
    encoding: Encoding = VocabularyEncoding()


class Sequence(Config):
    """The user's history: values of an item feature in the user's earlier positive events, oldest to newest."""

    kind: Literal["sequence"]
    of: str
    """The categorical item feature whose values (and vocabulary) the history holds."""
    max_length: PositiveInt = 50
    """The newest events are kept."""
    age: bool = False
    """Also give each event's age in seconds, as the feature `NAME.age`."""

    @property
    def role(self) -> Role:
        """Always `user`."""
        return "user"

    @property
    def input(self) -> bool:
        """Always true."""
        return True


Transform = Literal["standardize", "log", "log_squared", "bucketize", "log_squared_buckets"]
IN_BUCKETS: tuple[Transform, ...] = ("bucketize", "log_squared_buckets")
"""Transforms that turn a number into an id, which needs a table."""


class Numeric(_Feature):
    """A number; null and NaN mean missing (the training mean after standardising, or a bucket of its own)."""

    kind: Literal["numeric"]
    transform: Transform = "standardize"
    """`standardize`: (x - mean) / sd; `log`: sign(x) log(1 + |x|), standardised; `log_squared`: above 2 the whole part
    of (log x)^2, standardised; `bucketize`: an id by quantile; `log_squared_buckets`: an id for each whole number of
    `log_squared`. (The squared logarithm is that of the Criteo challenge's winners, Juan et al. 2014.)
    """
    buckets: PositiveInt | None = None
    """Number of quantile buckets, for `bucketize`: 10 by default."""
    min_count: PositiveInt | None = None
    """Training rows that a whole number needs for a bucket, for `log_squared_buckets`: 1 by default. Those with fewer
    fall into the bucket below."""

    @property
    def bucket_count(self) -> int:
        """`buckets`, or its default."""
        return 10 if self.buckets is None else self.buckets

    @property
    def bucket_rows(self) -> int:
        """`min_count`, or its default."""
        return 1 if self.min_count is None else self.min_count

    @model_validator(mode="after")
    def _buckets_fit_the_transform(self) -> Self:
        found: list[Misfit] = []
        if self.buckets is not None and self.transform != "bucketize":
            cure = "remove it, or use transform: bucketize"
            found.append((("buckets",), f"{self.transform} has no buckets to choose; {cure}"))
        if self.min_count is not None and self.transform != "log_squared_buckets":
            cure = "remove it, or use transform: log_squared_buckets"
            found.append((("min_count",), f"{self.transform} has no rare numbers; {cure}"))
        if found:
            raise misfits(found)
        return self


class Vector(_Feature):
    """A given dense embedding: a list column of `dim` floats; null means zeros."""

    kind: Literal["vector"]
    dim: PositiveInt


Feature = Annotated[Categorical | MultiValued | Sequence | Numeric | Vector, Field(discriminator="kind")]


RESERVED: Mapping[Role, frozenset[str]] = {
    "user": frozenset({"user", "event_start", "event_count"}),
    "item": frozenset({"item", "title", "train_count"}),
    "context": frozenset({"user_index", "item_index", "label", "weight", "propensity", "time", "history_stop"}),
}
"""Columns that the prepared tables have anyway: no feature may be called so."""


class SchemaConfig(Config):
    """The columns of the event log and the features made from them."""

    user: str | None
    """Column of the event log that names the user; null for a log that names none, for rankers alone."""
    item: str | None
    """Column of the event log that names the item; null likewise."""
    timestamp: str | None = None
    """Column with the event's time: a number in `timestamp_unit`, a date/time type, or ISO 8601 text (UTC if it names
    no offset)."""
    timestamp_unit: Literal["s", "ms", "us"] = "s"
    """Unit of a numeric timestamp; dates and times are converted to it, finer parts cut off."""
    weight: str | None = None
    """Column with the example's weight in the loss (1 where left out)."""
    propensity: str | None = None
    """Column of the event log with the probability, in (0, 1], with which the logging policy chose the logged item."""
    title: str | None = None
    """Item column that people read in recommendations."""
    features: dict[str, Feature]
    """Features by name."""

    @model_validator(mode="after")
    def _features_fit(self) -> Self:
        found: list[Misfit] = [
            (("features", name), text)
            for name, feature in self.features.items()
            for text in (*self._name_problems(name, feature), *self._sequence_problems(feature))
        ]
        if self.title is not None and self.item is None:
            found.append((("title",), "items have titles, and schema.item is null; name its column, or remove this"))
        if self.timestamp is None and self.timestamp_unit != "s":
            found.append((("timestamp_unit",), "there is no `timestamp`; name its column, or remove the unit"))
        if found:
            raise misfits(found)
        return self

    def _name_problems(self, name: str, feature: Feature) -> Iterator[str]:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            yield f"feature name {name!r} must be a letter, then letters, digits and underscores; rename it"
        if feature.role != "context" and getattr(self, feature.role) is None and not isinstance(feature, Sequence):
            cure = f"name the column in schema.{feature.role}, or give the feature role: context"
            yield f"feature {name!r} describes the {feature.role}, and schema.{feature.role} is null; {cure}"
        if name in RESERVED[feature.role]:
            cure = f"rename the feature and give it `column: {getattr(feature, 'column', None) or name}`"
            yield f"feature {name!r}: the prepared data have a column of this name; {cure}"
        # A SavedModel calls the ages of a sequence NAME_age.
        if isinstance(feature, Sequence) and feature.age and f"{name}_age" in self.features:
            yield f"feature {name}_age collides with the ages of sequence {name!r}; rename it"

    def _sequence_problems(self, feature: Feature) -> Iterator[str]:
        if not isinstance(feature, Sequence):
            return
        if self.user is None:
            yield "a sequence is a user's history, and schema.user is null; name the column, or remove the feature"
        source = self.features.get(feature.of)
        if not isinstance(source, Categorical) or source.role != "item":
            yield f"`of` names {feature.of!r}, which is no categorical item feature; name one"
        elif not source.input:
            yield f"`of` names {feature.of!r}, which the model does not read; remove its `input: false`"
        if self.timestamp is None:
            yield "a sequence needs schema.timestamp: a history is what came strictly before; name the column"

    @property
    def ids(self) -> dict[Entity, str]:
        """Whom the event log names, user and item, each with the column."""
        columns: dict[Entity, str | None] = {"user": self.user, "item": self.item}
        return {entity: column for entity, column in columns.items() if column is not None}

    @property
    def has_histories(self) -> bool:
        """Whether events can stand in histories: a user's, of items."""
        return self.user is not None and self.item is not None

    def of_role(self, *roles: Role) -> dict[str, Feature]:
        """The features with one of these roles, in the YAML's order."""
        return {name: feature for name, feature in self.features.items() if feature.role in roles}

    def inputs(self, *roles: Role) -> dict[str, Feature]:
        """Those of them that the model reads."""
        return {name: feature for name, feature in self.of_role(*roles).items() if feature.input}

    def column(self, name: str) -> str:
        """The raw column of feature `name` (for a sequence: that of the feature it repeats)."""
        feature = self.features[name]
        if isinstance(feature, Sequence):
            return self.column(feature.of)
        return feature.column or name
