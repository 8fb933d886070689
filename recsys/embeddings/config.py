"""Tables and the features that point at them.

A table owns rows, width, method, precision and optimizer; a feature names its table and how several values become one
vector. Features that name one table share it: a history with the candidate item, or many fields in one multiplexed
table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from recsys.config.base import Config, Many, default_tag, misfits
from recsys.embeddings.optimizers.config import LazyAdamConfig, MiniBatchAwareDecay, TableOptimizerConfig
from recsys.schema.config import (
    IN_BUCKETS,
    Categorical,
    Feature,
    HashEncoding,
    MultiValued,
    Numeric,
    SchemaConfig,
    Sequence,
    Vector,
)

Precision = Literal["float32", "float16", "bfloat16", "int8"]


class UniformConfig(Config):
    """Uniform in [-range, range]."""

    kind: Literal["uniform"] = "uniform"
    range: PositiveFloat = 0.05


class NormalConfig(Config):
    """Normal with mean 0, cut off at two standard deviations."""

    kind: Literal["normal"]
    stddev: PositiveFloat = 0.01


InitializerConfig = Annotated[UniformConfig | NormalConfig, Field(discriminator="kind"), default_tag("kind", "uniform")]


class _Table(Config):
    dim: PositiveInt
    """Width of a row."""
    optimizer: TableOptimizerConfig | None = None
    """For this table, in place of `embeddings.optimizer`."""
    served_precision: Precision | None = None
    """How the exported bundle stores the rows; left out, as in training. int8 has a float16 scale for each row."""


class StoredRows(_Table):
    """A table whose rows are stored as they are trained."""

    initializer: InitializerConfig = UniformConfig()
    """Where rows start."""
    precision: Precision = "float32"
    """How rows are stored while they are trained. Those below float32 are rounded stochastically; int8 has a learned
    scale for each row (ALPT, Li et al. 2023).
    """


class FullTable(StoredRows):
    """One row per id of the vocabularies that its features read (a history reads its item feature's): no collisions."""

    method: Literal["full"] = "full"


class HashedTable(StoredRows):
    """A fixed number of rows, shared out among the features in proportion to their vocabularies; ids of one feature
    collide with each other. The control for `multiplexed`.
    """

    method: Literal["hashed"]
    rows: PositiveInt
    """Over all features."""


class MultiplexedTable(StoredRows):
    """Unified Embedding (Coleman et al. 2023): all features read all rows, each through its own hash.

    An id's row is a hash of (feature name, chunk, id), with or without a vocabulary.
    """

    method: Literal["multiplexed"]
    rows: PositiveInt
    """Of each of the `tables`."""
    tables: PositiveInt = 1
    """Equal tables that a feature's chunks read in turn."""


class MixedDimTable(_Table):
    """Mixed dimensions (Ginart et al. 2019): widths by frequency in closed form, projected to `dim`.

    An id seen p times in training gets a width of dim (p / p_max)^alpha, rounded to a power of two.
    """

    method: Literal["mixed_dim"]
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.3
    """0 gives all ids the full width; 1 gives widths in proportion to frequency."""
    initializer: InitializerConfig = UniformConfig()
    """Where rows start."""


class MGQETable(_Table):
    """Multi-granular quantised embeddings (Kang et al. 2020): private codes for each id, into a codebook that all
    share.

    A vector is cut into `parts`; each part of an id is one of `codes` centroids, for ids of the tail one of the first
    `tail_codes`. Training holds float rows too; a bundle holds codes and codebook alone.
    """

    method: Literal["mgqe"]
    parts: PositiveInt = 4
    """Equal parts of a vector; `dim` must be a multiple."""
    codes: Annotated[int, Field(ge=2, le=256)] = 256
    tail_codes: Annotated[int, Field(ge=2, le=256)] = 64
    head: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of each vocabulary, the most frequent ids, that may use all codes."""
    commitment: NonNegativeFloat = 0.25
    """Weight of the pull of a row to its centroid (van den Oord et al. 2017, eq. 3, beta)."""
    initializer: InitializerConfig = UniformConfig()
    """Where rows start."""


class VectorTable(_Table):
    """Given vectors, one for each id of one vocabulary; ids without one (and OOV) start at zero."""

    method: Literal["vector"]
    path: str
    """Parquet file with the columns `value` (text, as in the raw data) and `vector` (list of `dim` floats). Relative
    paths start where those of `data.source` do.
    """
    train: Literal["frozen", "fine_tuned"] = "frozen"
    """Whether the tables' optimizer may move the vectors."""
    projection: PositiveInt | None = None
    """Width of a learned linear projection of the vectors; left out, there is none."""


class OptEmbedTable(_Table):
    """OptEmbed's supernet (Lyu et al., CIKM 2022): what `recsys search` trains to find rows and widths to keep.

    A row counts only while its sum of sizes is above a threshold that its field learns; in training each example and
    feature sees a prefix of random width.
    """

    method: Literal["optembed"]
    alpha: NonNegativeFloat = 1e-4
    """Weight of the penalty Σ exp(-threshold)."""
    threshold_learning_rate: PositiveFloat = 1e-4
    """Of the thresholds' plain SGD."""
    threshold: float = 0.0
    """Where thresholds start."""
    initializer: InitializerConfig = NormalConfig(kind="normal", stddev=0.001)
    """Where rows start: near zero, or no threshold reaches them."""


class DNISTable(_Table):
    """DNIS's relaxed table (Cheng et al. 2020): what `recsys search` uses to find the numbers to keep.

    Each number of a row is scaled by a selection in [0, 1], which ids of like frequency share. Nothing but a search
    moves it: at first it is 1, and the table a full one.
    """

    method: Literal["dnis"]
    shares: Many[Annotated[float, Field(gt=0.0, le=1.0)]] = (0.1, 0.2, 0.2, 0.2, 0.3)
    """Of the table's ids in each block, the most frequent first; together 1."""
    initializer: InitializerConfig = UniformConfig()
    """Where rows start."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if round(sum(self.shares), 6) != 1.0:
            raise misfits([(("shares",), f"they add up to {sum(self.shares):g}, and must to 1")])
        return self


TableConfig = Annotated[
    FullTable | HashedTable | MultiplexedTable | MixedDimTable | MGQETable | VectorTable | OptEmbedTable | DNISTable,
    Field(discriminator="method"),
    default_tag("method", "full"),
]


class FeatureConfig(Config):
    """Which table a feature reads, and what its values become.

    A `vector` feature of the schema and a `numeric` one that is not put in buckets need no entry; one with `projection`
    alone projects them.
    """

    table: str | None = None
    attention_table: str | None = None
    """A second table, of any width, for the search of target attention alone (DARE, Feng et al., ICLR 2025). Given for
    a sequence with `pooling: none` and for the item feature that it repeats; left out, `table` is searched too.
    """
    chunks: PositiveInt = 1
    """Rows of a hashed or multiplexed table that one id reads, through as many hashes; the vector is `chunks` times as
    wide as that table.
    """
    pooling: Literal["none", "mean", "sum", "sqrtn"] = "mean"
    """How the values of a multi-valued feature or sequence become one vector (of one value, all are that value's row);
    with a sequence's `age`, they are weighted by (1 + hours)^-decay, decay learned. `none` keeps them, with a mask, for
    layers that read sequences.
    """
    max_length: PositiveInt | None = None
    """Reads at most as many values: a sequence's newest, a multi-valued feature's first. The schema's maximum, if left
    out.
    """
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the values that training takes for unknown ones: other features learn to stand in for them, and an item
    that training has not seen has a vector by its content.
    """
    projection: PositiveInt | None = None
    """Width of a learned linear projection of a vector feature; of a number, the width of a learned vector that it
    multiplies, which puts it in one space with the rows of tables (AutoInt, Song et al. 2019, eq. 4).
    """

    def reads(self, table: str) -> bool:
        """Whether this feature reads a table, be it for the search alone."""
        return table in (self.table, self.attention_table)


class EmbeddingsConfig(Config):
    """All tables, all features that read one, and the tables' optimizer."""

    tables: dict[str, TableConfig]
    features: dict[str, FeatureConfig]
    optimizer: TableOptimizerConfig = LazyAdamConfig(kind="lazy_adam")
    plan: str | None = None
    """Folder of a plan that `recsys search` has made: its full tables are built as small as it says. Relative paths
    start where those of `data.source` do.
    """

    def at(self, folder: Path) -> Self:
        """The same, with the paths of given vectors and of the plan starting from `folder`."""
        tables = {
            name: table.model_copy(update={"path": str(folder / table.path)})
            if isinstance(table, VectorTable)
            else table
            for name, table in self.tables.items()
        }
        plan = None if self.plan is None else str(folder / self.plan)
        return self.model_copy(update={"tables": tables, "plan": plan})

    def as_trained(self) -> Self:
        """The same without what only an export heeds, and without the plan's path: it is its content that counts."""
        tables = {name: table.model_copy(update={"served_precision": None}) for name, table in self.tables.items()}
        return self.model_copy(update={"tables": tables, "plan": None})

    def readers(self, table: str) -> list[str]:
        """The features that read a table."""
        return [name for name, entry in self.features.items() if entry.reads(table)]

    def chunks(self, name: str, table: str) -> int:
        """Rows of a table that one id of feature `name` reads: more than one only where ids are hashed."""
        return self.features[name].chunks if hashes(self.tables[table]) else 1

    def optimizer_of(self, table: str) -> TableOptimizerConfig:
        """The optimizer of a table: its own, or that of all."""
        return self.tables[table].optimizer or self.optimizer

    def width(self, name: str, feature: Feature) -> int:
        """Width of the vector that feature `name` gives: 0 if it stays a sequence, its chunks' or a given vector's, 1
        for a number.
        """
        if not reads_table(feature):
            entry = self.features.get(name)
            return (entry.projection if entry else None) or (feature.dim if isinstance(feature, Vector) else 1)
        if self.features[name].pooling == "none":
            return 0
        return self._width(name, self.features[name].table)

    def row_width_of(self, name: str) -> int:
        """Width of what one id of feature `name` reads from its table, whether it is pooled or not."""
        return self._width(name, self.features[name].table)

    def _width(self, name: str, table: str | None) -> int:
        assert table is not None  # `problems` says so first
        return self.chunks(name, table) * row_width(self.tables[table])

    def problems(self, schema: SchemaConfig) -> list[tuple[str, str]]:
        """(dotted key, message) for everything that does not fit the schema."""
        found: list[tuple[str, str]] = []
        for name, feature in schema.features.items():
            if feature.input and reads_table(feature) and name not in self.features:
                found.append(("features", f"feature {name!r} ({feature.kind}) has no entry; name the table it reads"))
        for name, entry in self.features.items():
            found += [(f"features.{name}{key}", text) for key, text in self._feature_problems(name, entry, schema)]
        found += self._attention_problems(schema)
        for name, table in self.tables.items():
            if not self.readers(name):
                found.append((f"tables.{name}", "no feature reads this table; remove it"))
            found += [(f"tables.{name}{key}", text) for key, text in self._table_problems(name, table, schema)]
        return found

    def _feature_problems(self, name: str, entry: FeatureConfig, schema: SchemaConfig) -> Iterator[tuple[str, str]]:
        feature = schema.features.get(name)
        if feature is None:
            yield "", f"no feature {name!r} in the schema; it has {', '.join(schema.features)}"
        elif not feature.input:
            yield "", "the model does not read this feature (input: false); remove the entry, or make it an input"
            return
        elif not reads_table(feature):
            if entry != FeatureConfig(projection=entry.projection):
                yield "", f"a {feature.kind} feature reads no table; `projection` is all it may say"
            return
        elif entry.projection is not None:
            kind = "in buckets" if isinstance(feature, Numeric) else feature.kind
            yield ".projection", f"only vectors and numbers are projected, and {name!r} is {kind}; remove it"
        if entry.table is None:
            yield ".table", f"names no table; the tables are {', '.join(self.tables)}"
            return
        if entry.table not in self.tables:
            yield ".table", f"no table {entry.table!r}; the tables are {', '.join(self.tables)}"
            return
        if entry.attention_table is not None and entry.attention_table not in self.tables:
            yield ".attention_table", f"no table {entry.attention_table!r}; the tables are {', '.join(self.tables)}"
            return
        tables = {"table": self.tables[entry.table]}
        if entry.attention_table is not None:
            tables["attention_table"] = self.tables[entry.attention_table]
        if entry.chunks > 1 and not any(hashes(table) for table in tables.values()):
            method = tables["table"].method
            yield ".chunks", f"table {entry.table!r} is {method}, which has one row for an id; set it to 1"
        if feature is None:
            return
        for key, table in tables.items():
            if is_hashed(name, schema.features) and not hashes(table):
                text = f"{name!r} has no vocabulary (encoding: hash); its table needs `method: multiplexed` or hashed"
                yield f".{key}", text
        yield from _length_problems(entry, feature)
        yield from _dropout_problems(name, entry, schema)

    def _attention_problems(self, schema: SchemaConfig) -> Iterator[tuple[str, str]]:
        """A search compares the history with its target: both must have vectors for it, of one width."""
        repeats = {
            name: feature.of
            for name, feature in schema.features.items()
            if isinstance(feature, Sequence) and name in self.features and self.features[name].pooling == "none"
        }
        searched = {name: entry.attention_table for name, entry in self.features.items() if entry.attention_table}
        for name, table in searched.items():
            key = f"features.{name}.attention_table"
            if table == self.features[name].table:
                yield key, f"{table!r} is the feature's own table; leave this out to search it, or name a second one"
            if name not in repeats and name not in repeats.values():
                yield (
                    key,
                    "only a sequence with `pooling: none` and the item feature it repeats are searched; remove it",
                )
        for name, of in repeats.items():
            lacking = [reader for reader in (name, of) if reader not in searched]
            if searched.keys() & {*repeats, *repeats.values()}:
                text = "none is given, but other histories or targets have one; give it here too, or nowhere"
                yield from ((f"features.{reader}.attention_table", text) for reader in lacking)
            if not lacking and {searched[name], searched[of]} <= self.tables.keys():
                own, target = (self._width(reader, searched[reader]) for reader in (name, of))
                if own != target:
                    text = f"{name!r} has {own} numbers there and its target {of!r} has {target}; choose one width"
                    yield f"features.{name}.attention_table", text

    def _table_problems(self, name: str, table: TableConfig, schema: SchemaConfig) -> Iterator[tuple[str, str]]:
        owners = {vocabulary_owner(reader, schema.features) for reader in self.readers(name)}
        if isinstance(table, HashedTable) and len(owners) > 1:
            for owner in sorted(owner for owner in owners if is_hashed(owner, schema.features)):
                yield (
                    ".method",
                    f"rows go by vocabulary, and {owner!r} has none; give it a table of its own, or multiplex",
                )
            if len(owners) > table.rows:
                yield ".rows", f"{table.rows} rows cannot be shared out among {len(owners)} features; raise it"
        if isinstance(table, MGQETable):
            if table.dim % table.parts:
                yield ".parts", f"{table.parts} does not divide dim {table.dim}"
            if table.tail_codes > table.codes:
                yield ".tail_codes", f"{table.tail_codes} is more than codes, {table.codes}; lower it"
        if isinstance(table, VectorTable):
            if len(owners) > 1:
                text = f"given vectors belong to one vocabulary, and {', '.join(sorted(owners))} read them"
                yield "", f"{text}; use two tables"
            for owner in sorted(owner for owner in owners if isinstance(schema.features.get(owner), Numeric)):
                yield "", f"given vectors go by values, and {owner!r} is a number in buckets; choose another method"
            if table.train == "frozen" and table.optimizer is not None:
                yield ".optimizer", "frozen vectors need none; remove it, or set train to fine_tuned"
        if isinstance(table, MixedDimTable) and isinstance(self.optimizer_of(name).decay, MiniBatchAwareDecay):
            text = "mini-batch aware decay is not made for rows of several widths"
            yield ".optimizer", f"{text}; give this table an optimizer with another decay, or without"
        if isinstance(table, MixedDimTable | MGQETable) and table.served_precision not in (None, "float32"):
            yield ".served_precision", f"{table.method} decides by itself how rows are stored; remove it"


def hashes(table: TableConfig) -> bool:
    """Whether rows go by a hash of the id, which needs no vocabulary and may read several for one id."""
    return isinstance(table, HashedTable | MultiplexedTable)


def row_width(table: TableConfig) -> int:
    """Width of what one id reads from a table."""
    return (table.projection if isinstance(table, VectorTable) else None) or table.dim


def reads_table(feature: Feature) -> bool:
    """Whether a feature's values are ids that need an embedding table."""
    if isinstance(feature, Numeric):
        return feature.transform in IN_BUCKETS
    return isinstance(feature, (Categorical, MultiValued, Sequence))


def vocabulary_owner(name: str, features: Mapping[str, Feature]) -> str:
    """The feature of the schema whose ids `name` holds: itself, or for a sequence the item feature it repeats."""
    feature = features.get(name)
    return feature.of if isinstance(feature, Sequence) else name


def is_hashed(name: str, features: Mapping[str, Feature]) -> bool:
    """Whether a feature's ids are fingerprints, without a vocabulary."""
    feature = features.get(vocabulary_owner(name, features))
    return isinstance(feature, (Categorical, MultiValued)) and isinstance(feature.encoding, HashEncoding)


def _dropout_problems(name: str, entry: FeatureConfig, schema: SchemaConfig) -> Iterator[tuple[str, str]]:
    if not entry.dropout:
        return
    if isinstance(schema.features[name], Numeric):
        yield ".dropout", f"{name!r} is a number in buckets, and no number is unknown; remove it"
    elif is_hashed(name, schema.features):
        text = f"{name!r} has no vocabulary (encoding: hash), so no value is unknown; remove it, or use a vocabulary"
        yield ".dropout", text


def _length_problems(entry: FeatureConfig, feature: Feature) -> Iterator[tuple[str, str]]:
    if isinstance(feature, (MultiValued, Sequence)):
        if entry.max_length is not None and entry.max_length > feature.max_length:
            yield ".max_length", f"{entry.max_length} is more than the schema's {feature.max_length}; lower it"
    elif entry.max_length is not None:
        yield ".max_length", f"a {feature.kind} feature has one value; remove it"
    elif entry.pooling == "none":
        yield ".pooling", f"a {feature.kind} feature has one value; remove it"
