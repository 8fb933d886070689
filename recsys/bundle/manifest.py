"""`manifest.json`: what a bundle is, what a request to it holds, and the digest of every file in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import (
    AwareDatetime,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

import recsys
from recsys._versions import installed
from recsys.bundle.layout import ITEM_TOWER, ITEMS, QUERY_TOWER, RANKER, SAVED_MODEL, USERS, VECTORS, graph_folder
from recsys.config.base import Config
from recsys.schema.config import Categorical, Feature, MultiValued, Numeric, Role, SchemaConfig, Sequence

FORMAT: Literal[2] = 2
"""Since 2, SavedModels stand in folders of the bundle's version."""
EXPLAIN = "explain"
"""The ranker's signature that says what its layers looked at, where they weigh fields or events."""
RANK = "rank"
"""The ranker's signature for one user and K items."""
RANK_MANY, QUERY_OF = "rank_many", "query_of"
"""That for U users and K items, and its input that says whose candidate each item is."""
Kind = Literal["two_tower", "ranker"]
"""What is served: items for a query (which a ranker may put in order), or scores of given pairs alone."""
_GRAPHS: dict[Kind, tuple[str, ...]] = {"two_tower": (QUERY_TOWER, ITEM_TOWER), "ranker": ()}
_FILES: dict[Kind, tuple[str, ...]] = {"two_tower": (VECTORS, ITEMS, USERS), "ranker": (ITEMS, USERS)}


class _RawField(Config):
    role: Role
    """Whom it describes: the bundle knows `user` features of known users; `context` comes with the request."""


class CategoricalField(_RawField):
    """One value: text, an integer or a boolean."""

    kind: Literal["categorical"] = "categorical"


class MultiValuedField(_RawField):
    """A list of values, of which the first `max_length` count."""

    kind: Literal["multi_valued"] = "multi_valued"
    max_length: PositiveInt


class SequenceField(_RawField):
    """A history of the values of item feature `of`, oldest first, of which the newest `max_length` count."""

    kind: Literal["sequence"] = "sequence"
    role: Role = "user"
    of: str
    max_length: PositiveInt
    age: bool = False
    """Whether `NAME.age` comes with it: seconds before the request, one for each event."""


class NumericField(_RawField):
    """One finite number."""

    kind: Literal["numeric"] = "numeric"


class VectorField(_RawField):
    """A list of `dim` finite numbers."""

    kind: Literal["vector"] = "vector"
    dim: PositiveInt


RawField = Annotated[
    CategoricalField | MultiValuedField | SequenceField | NumericField | VectorField, Field(discriminator="kind")
]


class IndexFacts(Config):
    """Which index answers, and how near it is to exact search."""

    kind: Literal["exact", "scann"]
    k: PositiveInt
    """The cut-off at which the recall was measured."""
    recall: Annotated[float, Field(ge=0.0, le=1.0)]
    """Measured recall@k against exact search, over held-out queries (1 for the exact index)."""
    recall_low: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """The lower end of its 95 % interval."""
    promise: dict[str, float] = Field({})
    """What the index keeps, as the YAML says it. `index/curve.json` has every setting that was measured."""
    milliseconds: float | None = None
    """Median time of one query by itself, where the bundle was exported; None for the exact index."""


class AlignmentFacts(Config):
    """How a model's vectors were turned to those of an earlier bundle, and whether queries of the one find what they
    should among items of the other: mean recall@`k` of held-out positives, among the items that both have.
    """

    bundle: str
    """Name and version of the earlier one."""
    shared_items: PositiveInt
    """Items that both have."""
    cosine_before: float
    """Mean cosine of an item's two vectors, before the rotation."""
    cosine: float
    """After it."""
    users: NonNegativeInt = 0
    """Users whose queries both bundles know; without any, there is no recall."""
    k: PositiveInt | None = None
    """Their cut-off."""
    new_query_new_index: float | None = None
    """As each model is by itself: the rotation changes nothing of it."""
    old_query_old_index: float | None = None
    """Likewise."""
    new_query_old_index: float | None = None
    """Of a mixed fleet."""
    old_query_new_index: float | None = None
    """Likewise."""
    new_query_old_index_before: float | None = None
    """Of a mixed fleet without the rotation."""
    old_query_new_index_before: float | None = None
    """Likewise."""


class TableFacts(Config):
    """One embedding table, as the SavedModels hold it."""

    name: str
    method: str
    """As in the YAML: full, multiplexed, ...; `planned` for a full table that a plan has made smaller."""
    rows: PositiveInt
    """Vectors that can be looked up."""
    dim: PositiveInt
    """Width of a looked-up vector."""
    precision: str
    """Type of the stored numbers, or types: float32, float16, bfloat16, int8 (with a float16 scale for each row)."""
    bytes: NonNegativeInt
    """What one copy of the table takes; each SavedModel holds one of every table that it reads."""
    features: tuple[str, ...]
    """The features that read it."""


class RankingFacts(Config):
    """What `ranker/` takes and gives, and whence it comes."""

    name: str
    """The ranker's experiment."""
    request: dict[str, RawField]
    """The user and context features that it reads, by name; the bundle's `request` has them too."""
    item: dict[str, RawField]
    """The item features that it reads; the bundle's `item` or `described` has them too."""
    heads: tuple[str, ...] = ()
    """Labels that it scores beside the one that it ranks by."""
    metrics: dict[str, float]
    """Its own test metrics."""
    tables: tuple[TableFacts, ...] = ()
    """Its embedding tables."""
    config_digest: str


class Versions(Config):
    """Installed versions at export."""

    recsys: str
    tensorflow: str
    numpy: str
    scann: str | None
    """None where ScaNN was not installed."""

    @classmethod
    def installed(cls) -> Versions:
        """The versions in this environment, without importing any of them."""
        return cls(
            recsys=recsys.__version__,
            tensorflow=installed("tensorflow") or installed("tensorflow-cpu") or "none",
            numpy=installed("numpy") or "none",
            scann=installed("scann"),
        )


class FileFacts(Config):
    """One file of the bundle."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: NonNegativeInt


class Description(Config):
    """The part of the manifest that the exporter knows; `BundleWriter` adds the rest."""

    name: str
    """The experiment's name."""
    kind: Kind = "two_tower"
    request: dict[str, RawField]
    """The user and context features that a request may hold, by name."""
    item: dict[str, RawField]
    """The item features, by name: the inputs of the item tower."""
    embedding_dim: PositiveInt | None = None
    """Width of the towers' vectors; None for a ranker."""
    catalogue_size: NonNegativeInt
    """Items; a ranker may be of a log that names none."""
    metrics: dict[str, float]
    """Test metrics of the exported model."""
    index: IndexFacts | None = None
    """None for a ranker."""
    complements: IndexFacts | None = None
    """Of the index of what goes with items; None where there is none."""
    retriever_k: PositiveInt = 100
    """Items that the in-graph retriever returns, at most."""
    catalogue: str | None = None
    """Digest of the items that are there and of their vectors: the version of the catalogue. The retriever's signature
    `catalogue` tells that of its snapshot. None for a ranker."""
    described: dict[str, RawField] = Field({})
    """Item features that no model reads; requests can filter by them."""
    item_columns: dict[str, str] = Field({})
    """The columns of the source's table of items, by `item`, `title` and feature, so that new items can come as the old
    ones did."""
    item_separators: dict[str, str] = Field({})
    """What stands between the values of multi-valued item features in text."""
    alignment: AlignmentFacts | None = None
    """Where the vectors were aligned to those of an earlier bundle."""
    ranking: RankingFacts | None = None
    """Of the ranker; None where a two_tower retrieves alone."""
    tables: tuple[TableFacts, ...] = ()
    """The towers' embedding tables."""
    config_digest: str
    data_digest: str
    timestamp_unit: Literal["s", "ms", "us"] | None = None
    """Unit of `history_time`, `data_time` and a request's `time`; None where the data have no time."""
    data_time: int | None = None
    """Time of the latest event in the data, in `timestamp_unit`."""

    @model_validator(mode="after")
    def _kind_fits(self) -> Self:
        for name in ("embedding_dim", "index"):
            if (getattr(self, name) is None) != (self.kind == "ranker"):
                raise ValueError(f"a {self.kind} bundle has {'an' if self.kind == 'two_tower' else 'no'} `{name}`")
        if self.kind == "ranker" and self.ranking is None:
            raise ValueError("a ranker bundle has `ranking`")
        return self

    @model_validator(mode="after")
    def _one_request_serves_both_stages(self) -> Self:
        if self.ranking is None:
            return self
        known = self.request | self.described | self.item
        for name, field in (self.ranking.request | self.ranking.item).items():
            if known.get(name) != field:
                raise ValueError(f"`ranking` reads {name} otherwise than the bundle's own features say")
        return self

    @property
    def heads(self) -> tuple[str, ...]:
        """Labels that the ranker scores beside the one that it ranks by."""
        return () if self.ranking is None else self.ranking.heads

    @model_validator(mode="after")
    def _there_is_something_to_recommend(self) -> Self:
        if self.kind == "two_tower" and not self.catalogue_size:
            raise ValueError("a two_tower bundle has items")
        return self

    @model_validator(mode="after")
    def _ages_fit(self) -> Self:
        for age in age_inputs(self.request):
            if self.timestamp_unit is None:
                raise ValueError(f"{age} needs `timestamp_unit`")
            if signature_name(age) in self.request:
                raise ValueError(f"{age} and the feature {signature_name(age)} share a name in the signature")
        return self


class Manifest(Description):
    """`manifest.json`."""

    format: Literal[2] = FORMAT
    version: PositiveInt
    """N of `bundle/N/`."""
    created: AwareDatetime
    versions: Versions
    files: dict[str, FileFacts]
    """Every file but this one, by its path in the bundle."""

    @field_validator("files")
    @classmethod
    def _files_inside(cls, files: dict[str, FileFacts], info: ValidationInfo) -> dict[str, FileFacts]:
        for name in files:
            path = PurePosixPath(name)
            if "\\" in name or "\0" in name or path.is_absolute() or ".." in path.parts or str(path) != name:
                raise ValueError(f"{name!r} is no plain path inside the bundle")
        known = info.data  # what else is wrong is said already
        needed = required(known.get("kind", "two_tower"), known.get("version", 1), known.get("ranking") is not None)
        absent = [name for name in needed if name not in files]
        if absent:
            raise ValueError(f"required files are not listed: {', '.join(absent)}")
        return files


def required(kind: Kind, version: int, ranks: bool = False) -> tuple[str, ...]:
    """Files without which nothing can be served."""
    graphs = (*_GRAPHS[kind], *((RANKER,) if ranks else ()))
    return (*(f"{graph_folder(graph, version)}/{SAVED_MODEL}" for graph in graphs), *_FILES[kind])


def age_inputs(fields: Mapping[str, RawField]) -> dict[str, str]:
    """The inputs `NAME.age`, each with the sequence that it belongs to."""
    return {f"{name}.age": name for name, field in fields.items() if isinstance(field, SequenceField) and field.age}


def signature_name(name: str) -> str:
    """The name of a request's input in a SavedModel's signature: TensorFlow allows no dot in it."""
    return name.replace(".", "_")


def further_score(head: str) -> str:
    """What a SavedModel calls the probability of a further head's label."""
    return f"score_{head}"


def fields_of(schema: SchemaConfig, *roles: Role) -> dict[str, RawField]:
    """The model's inputs of these roles, as a request carries them: `fields_of(schema, "user", "context")`."""
    return {name: _field(feature) for name, feature in schema.inputs(*roles).items()}


def described_of(schema: SchemaConfig) -> dict[str, RawField]:
    """The item features that no model reads."""
    others = {name: feature for name, feature in schema.features.items() if not isinstance(feature, Sequence)}
    return {name: _field(each) for name, each in others.items() if each.role == "item" and not each.input}


def _field(feature: Feature) -> RawField:
    if isinstance(feature, Categorical):
        return CategoricalField(role=feature.role)
    if isinstance(feature, MultiValued):
        return MultiValuedField(role=feature.role, max_length=feature.max_length)
    if isinstance(feature, Sequence):
        return SequenceField(of=feature.of, max_length=feature.max_length, age=feature.age)
    if isinstance(feature, Numeric):
        return NumericField(role=feature.role)
    return VectorField(role=feature.role, dim=feature.dim)
