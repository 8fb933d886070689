"""Tables and the features that point at them.

A table owns rows, width, method and optimizer; a feature names its table and how several values become one vector.
Features that name one table share it: a history with the candidate item, or many fields in one hashed table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from recsys.config.base import Config, default_tag
from recsys.schema.config import (
    Categorical,
    Feature,
    HashEncoding,
    MultiValued,
    Numeric,
    SchemaConfig,
    Sequence,
    Vector,
)


class LazyAdamConfig(Config):
    """Adam whose moments move only for the rows looked up in the step."""

    kind: Literal["lazy_adam"]
    learning_rate: PositiveFloat = 1e-3
    beta_1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: PositiveFloat = 1e-8
    """Added to the square root of the bias-corrected second moment (Kingma & Ba, Algorithm 1; torch's convention)."""


class RowwiseAdagradConfig(Config):
    """Adagrad with one accumulator per row: the mean squared gradient of the row."""

    kind: Literal["rowwise_adagrad"]
    learning_rate: PositiveFloat = 0.05
    initial_accumulator: Annotated[float, Field(ge=0)] = 0.0
    epsilon: PositiveFloat = 1e-8


TableOptimizerConfig = Annotated[LazyAdamConfig | RowwiseAdagradConfig, Field(discriminator="kind")]


class _Table(Config):
    dim: PositiveInt
    """Width of a row."""
    initial_range: PositiveFloat = 0.05
    """Rows start uniform in [-initial_range, initial_range]."""


class FullTable(_Table):
    """One row per id of the vocabularies that its features read (a history reads its item feature's): no collisions."""

    method: Literal["full"] = "full"


class HashedTable(_Table):
    """A fixed number of rows; an id's row is a hash of (feature name, id). Works with and without a vocabulary."""

    method: Literal["hashed"]
    rows: PositiveInt


TableConfig = Annotated[FullTable | HashedTable, Field(discriminator="method"), default_tag("method", "full")]


class FeatureConfig(Config):
    """Which table a feature reads, and how several values become one vector."""

    table: str
    pooling: Literal["mean", "sum", "sqrtn"] = "mean"
    """For multi-valued features and sequences (of one value, all are that value's row); with a sequence's `age`, values
    are weighted by (1 + hours)^-decay, decay learned.
    """


class EmbeddingsConfig(Config):
    """All tables, all features that read one, and the tables' optimizer."""

    tables: dict[str, TableConfig]
    features: dict[str, FeatureConfig]
    optimizer: TableOptimizerConfig = LazyAdamConfig(kind="lazy_adam")

    def width(self, name: str, feature: Feature) -> int:
        """Width of the vector that feature `name` gives: its table's, a given vector's, or 1 for a number."""
        if reads_table(feature):
            return self.tables[self.features[name].table].dim
        return feature.dim if isinstance(feature, Vector) else 1

    def problems(self, schema: SchemaConfig) -> list[tuple[str, str]]:
        """(dotted key, message) for everything that does not fit the schema."""
        found: list[tuple[str, str]] = []
        for name, feature in schema.features.items():
            if reads_table(feature) and name not in self.features:
                found.append(("features", f"feature {name!r} ({feature.kind}) has no entry; name the table it reads"))
        for name, entry in self.features.items():
            key = f"features.{name}"
            feature_ = schema.features.get(name)
            if feature_ is None:
                found.append((key, f"no feature {name!r} in the schema; it has {', '.join(schema.features)}"))
            elif not reads_table(feature_):
                found.append((key, f"a {feature_.kind} feature reads no table; remove the entry"))
            if entry.table not in self.tables:
                found.append((f"{key}.table", f"no table {entry.table!r}; the tables are {', '.join(self.tables)}"))
            elif (
                feature_ is not None
                and _is_hashed(name, schema.features)
                and isinstance(self.tables[entry.table], FullTable)
            ):
                found.append(
                    (
                        f"{key}.table",
                        f"{name!r} has no vocabulary (encoding: hash), so its table needs `method: hashed`",
                    )
                )
        read = {entry.table for entry in self.features.values()}
        found.extend(
            (f"tables.{table}", "no feature reads this table; remove it") for table in self.tables if table not in read
        )
        return found


def reads_table(feature: Feature) -> bool:
    """Whether a feature's values are ids that need an embedding table."""
    if isinstance(feature, Numeric):
        return feature.transform == "bucketize"
    return isinstance(feature, (Categorical, MultiValued, Sequence))


def _is_hashed(name: str, features: Mapping[str, Feature]) -> bool:
    feature = features[name]
    if isinstance(feature, Sequence):
        return _is_hashed(feature.of, features)
    return isinstance(feature, (Categorical, MultiValued)) and isinstance(feature.encoding, HashEncoding)
