"""What is measured, for whom, beside what, and which of it decides when to stop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self, TypeGuard

from pydantic import Field, FiniteFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from recsys.config.base import Config, Many, Misfit, default_tag, misfits
from recsys.schema.config import Categorical, Feature, MultiValued, Numeric, SchemaConfig

METRICS = ("recall", "precision", "hit_rate", "ndcg", "mrr", "map")
"""Ranking metrics of each user, at every cut-off."""
UNIT = (*METRICS, "graded_ndcg", "auc", "gauc")
"""Metrics that lie in [0, 1]: so does what is said of where they may lie."""
STAGES = ("reachable", "lost_in_retrieval", "lost_in_index", "lost_in_ranking", "recall")
"""Of two stages together, at every cut-off: what a perfect ranking would find, what each stage loses of it, and what is
left; `lost_in_index`, a part of what retrieval loses, only where the index is approximate."""
Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class ItemFrequencySlices(Config):
    """Items by their positive training events: the head, the torso and the tail of the catalogue, and cold items."""

    kind: Literal["item_frequency"] = "item_frequency"
    head: Share = 0.1
    """Share of the trained items that are the head: the most frequent ones."""
    tail: Share = 0.5
    """Share that are the tail; the torso is between. Items without training events are cold."""

    @model_validator(mode="after")
    def _leave_a_torso(self) -> Self:
        if self.head + self.tail >= 1:
            raise ValueError(f"head and tail are {self.head + self.tail:g} together, which leaves no torso")
        return self


class UserActivitySlices(Config):
    """Users by their positive training events, in groups of equal size; users with none are new."""

    kind: Literal["user_activity"] = "user_activity"
    groups: Annotated[int, Field(ge=2, le=10)] = 3
    """How many groups."""


class ReturningSlices(Config):
    """New users, whom training never saw, against returning ones."""

    kind: Literal["returning"] = "returning"


class FeatureSlices(Config):
    """One slice for each value of a feature of user, item or context, or for each range of a number.

    A column that the model is not to read can be a feature with `input: false`.
    """

    kind: Literal["feature"] = "feature"
    feature: str
    """A categorical, multi-valued or numeric feature of the schema."""
    top: PositiveInt = 10
    """The most frequent values have a slice of their own, all others one together."""
    edges: Many[FiniteFloat] | None = None
    """Where the ranges of a number meet, rising; left out, its training quartiles."""

    @field_validator("edges")
    @classmethod
    def _rise(cls, edges: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if edges is not None and (not edges or list(edges) != sorted(set(edges))):
            raise ValueError(f"edges must rise, as {sorted(set(edges)) or [0, 1]} do")
        return edges


class InHistorySlices(Config):
    """A ranker's examples by whether their item, or a value of it, is in their own history: `present`, `absent`; or
    there is `no history`. Who only looks for what was there before has nothing to say of the absent.
    """

    kind: Literal["in_history"]
    feature: str | None = None
    """A categorical or multi-valued item feature; left out, the item itself."""


Slices = Annotated[
    ItemFrequencySlices | UserActivitySlices | ReturningSlices | InHistorySlices | FeatureSlices,
    Field(discriminator="kind"),
    default_tag("kind", "feature"),
]


class EvaluationConfig(Config):
    """How a model is measured.

    A two_tower ranks the full catalogue: every item is a candidate but for those that the user has already had. A
    ranker's probabilities are measured over all examples; cut-offs do not concern it.
    """

    ks: Annotated[Many[PositiveInt], Field(min_length=1)] = (10, 50, 100)
    """Cut-offs, rising."""
    monitor: str = "ndcg@10"
    """The validation metric that early stopping and the choice of the best checkpoint look at, as METRIC@K."""
    users_per_block: PositiveInt = 4_096
    """Users ranked at once: bounds the memory."""
    slices: Many[Slices] = (ItemFrequencySlices(), UserActivitySlices(), ReturningSlices())
    """Groups of items, users or examples that are measured by themselves."""
    small_slice: PositiveInt = 100
    """Slices with fewer users are marked as small."""
    category: str | None = None
    """A categorical or multi-valued item feature. It gives the diversity and the miscalibration of recommendations, and
    the baseline of categories in the history."""
    recent: Share = 0.05
    """Share of the positive training events, the newest, that the baseline `recent_popularity` counts."""
    champion: str | None = None
    """The run directory of an earlier, evaluated run, relative to the YAML, that this one is held to."""
    clip: PositiveFloat | None = None
    """The largest weight, one propensity over another, in off-policy estimates; left out, weights are not cut."""
    leakage: Literal["refuse", "warn"] = "refuse"
    """What becomes of data that tell of the future: no number, or a number with a warning in its record."""

    @field_validator("ks")
    @classmethod
    def _rising(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if list(ks) != sorted(set(ks)):
            raise ValueError(f"cut-offs must rise, as {sorted(set(ks))} do")
        return ks

    @model_validator(mode="after")
    def _monitors_what_it_measures(self) -> Self:
        known = [f"{metric}@{k}" for metric in METRICS for k in self.ks]
        if self.monitor not in known:
            raise ValueError(f"monitor is {self.monitor!r}; with these ks it can be {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _slice_once(self) -> Self:
        names = [slicing_name(each) for each in self.slices]
        found: list[Misfit] = [
            (("slices", str(at)), f"{name} is sliced by twice; remove one")
            for at, name in enumerate(names)
            if name in names[:at]
        ]
        if found:
            raise misfits(found)
        return self

    def problems(self, schema: SchemaConfig) -> Iterator[Misfit]:
        """What does not fit the schema: keys below `evaluation`, and why."""
        for at, each in enumerate(self.slices):
            if isinstance(each, FeatureSlices):
                place, feature = ("slices", str(at)), schema.features.get(each.feature)
                if not isinstance(feature, Numeric) and not _is_category(feature):
                    yield (*place, "feature"), f"{_said(each.feature, feature)}; {_named(schema, Numeric)}"
                elif each.edges is not None and not isinstance(feature, Numeric):
                    yield (*place, "edges"), f"{each.feature} is {feature.kind} and has no ranges; remove them"
            elif isinstance(each, InHistorySlices) and not schema.has_histories:
                yield ("slices", str(at)), "the log has no histories without schema.user and schema.item; remove it"
            elif isinstance(each, InHistorySlices) and each.feature is not None:
                for text in _no_item_category(each.feature, schema):
                    yield ("slices", str(at), "feature"), text
        if self.clip is not None and schema.propensity is None:
            yield ("clip",), "there are no weights to cut without schema.propensity; remove it, or name the column"
        if self.category is not None:
            for text in _no_item_category(self.category, schema):
                yield ("category",), text


def slicing_definitions(config: EvaluationConfig) -> dict[str, str]:
    """Of each division its name and all that decides it, given the data: only equal ones can be compared."""
    return {slicing_name(each): each.model_dump_json() for each in config.slices}


def slicing_name(config: Slices) -> str:
    """How records and `recsys compare` call these slices: the kind, or the feature."""
    match config:
        case FeatureSlices():
            return config.feature
        case InHistorySlices():
            return f"{config.feature or 'item'}_in_history"
        case _:
            return config.kind


def _no_item_category(name: str, schema: SchemaConfig) -> Iterator[str]:
    """What is wrong with a feature that should say of which categories an item is."""
    feature = schema.features.get(name)
    if not _is_category(feature):
        yield f"{_said(name, feature)}; {_named(schema)}"
    elif feature.role != "item":
        yield f"{name} describes the {feature.role}, not the item; {_named(schema)}"


def _is_category(feature: Feature | None) -> TypeGuard[Categorical | MultiValued]:
    """With a vocabulary, which says what the ids mean."""
    return isinstance(feature, Categorical | MultiValued) and feature.encoding.kind == "vocabulary"


def _said(name: str, feature: Feature | None) -> str:
    if feature is None:
        return f"no feature {name!r} in the schema"
    hashed = isinstance(feature, Categorical | MultiValued)
    return f"{name} is encoded by hash, without a vocabulary" if hashed else f"{name} is a {feature.kind}"


def _named(schema: SchemaConfig, *more: type[Feature]) -> str:
    fit = [name for name, each in schema.features.items() if _is_category(each) or isinstance(each, more)]
    return f"name one of {', '.join(fit)}" if fit else "remove it"
