"""The configuration of one experiment: every component's config in one, and whether they fit each other."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, NonNegativeInt, model_validator

from recsys.config.base import Config, Misfit, misfits
from recsys.config.digest import digest
from recsys.data.config import DataConfig, DuckDBEngine, LeaveLastOut, TemporalSplit
from recsys.embeddings.config import EmbeddingsConfig, StoredRows
from recsys.evaluation.config import EvaluationConfig
from recsys.export.config import RetrievalConfig
from recsys.models.config import ModelConfig, RankerConfig
from recsys.schema.config import SchemaConfig
from recsys.training.config import TrainingConfig

_FOLDER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def _folder_name(text: str) -> str:
    if not re.fullmatch(_FOLDER_NAME, text):
        raise ValueError(f"{text!r} names no folder; begin with a letter or digit, go on with those and . _ -")
    return text


class ExperimentConfig(Config):
    """Everything about one experiment."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: Annotated[str, AfterValidator(_folder_name), Field(json_schema_extra={"pattern": _FOLDER_NAME})]
    """Names the run's folder."""
    seed: NonNegativeInt = 0
    """Of initial weights, shuffling and dropout. (The split has its own, `data.seed`.)"""
    data: DataConfig
    table_schema: SchemaConfig = Field(alias="schema")
    embeddings: EmbeddingsConfig
    model: ModelConfig
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    """How the model is measured, beside what, and for whom by themselves."""
    retrieval: RetrievalConfig = RetrievalConfig()
    """Of a two_tower model; a ranker has no index."""

    @property
    def training_digest(self) -> str:
        """Of all that the weights depend on: cut-offs, index, served precision, engine, devices may change later."""
        plain = TrainingConfig()
        indifferent = ("strategy", "steps_per_call", "checkpoint_every_steps", "tensorboard")
        parts = {
            "data": self.data.model_copy(update={"engine": DuckDBEngine()}),
            "embeddings": self.embeddings.as_trained(),
            "training": self.training.model_copy(update={key: getattr(plain, key) for key in indifferent}),
            "evaluation": EvaluationConfig().model_copy(update={"monitor": self.evaluation.monitor}),
            "retrieval": RetrievalConfig(),
        }
        return digest(self.model_copy(update=parts))

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        found: list[Misfit] = [
            (("embeddings", *key.split(".")), text) for key, text in self.embeddings.problems(self.table_schema)
        ]
        found += self._data_problems() + self._table_problems() + self._model_problems()
        found += [(("evaluation", *key), text) for key, text in self.evaluation.problems(self.table_schema)]
        if found:
            raise misfits(found)
        return self

    def _data_problems(self) -> list[Misfit]:
        if isinstance(self.data.split, (TemporalSplit, LeaveLastOut)) and self.table_schema.timestamp is None:
            return [
                (("data", "split", "kind"), f"{self.data.split.kind} needs schema.timestamp; name it, or use random")
            ]
        return []

    def _table_problems(self) -> list[Misfit]:
        """What a table asks of the model and of the devices."""
        found = list[Misfit]()
        for name, entry in self.embeddings.features.items():
            if entry.pooling == "none":
                text = f"{self.model.kind} has no layer that reads a sequence; choose mean, sum or sqrtn"
                found.append((("embeddings", "features", name, "pooling"), text))
        if self.training.strategy == "parameter_server":
            for name, table in self.embeddings.tables.items():
                if isinstance(table, StoredRows) and table.precision != "float32":
                    text = f"{table.precision} rows cannot be cut over parameter servers; train in float32"
                    found.append((("embeddings", "tables", name, "precision"), text))
        return found

    def _model_problems(self) -> list[Misfit]:
        model, found = self.model, list[Misfit]()
        if isinstance(model, RankerConfig):
            return self._ranker_problems(model)
        if self.table_schema.propensity is not None and self.data.negatives is None:
            text = "off-policy estimates need the events without reward too; say in data.negatives which they are"
            found.append((("schema", "propensity"), text))
        widths, sound = {}, not self.embeddings.problems(self.table_schema)
        for name, tower, features in (
            ("query", model.query, self.table_schema.inputs("user", "context")),
            ("item", model.item, self.table_schema.inputs("item")),
        ):
            if not features:
                found.append((("schema", "features"), f"the {name} tower has no feature; add one"))
            elif sound:
                embedded = sum(self.embeddings.width(feature, f) for feature, f in features.items())
                widths[name] = tower.width(embedded)
        if len(set(widths.values())) > 1:
            text = f"the query tower ends in {widths['query']} units, the item tower in {widths['item']}"
            found.append((("model",), f"{text}; set both towers' output_dim to one width"))
        return found

    def _ranker_problems(self, model: RankerConfig) -> list[Misfit]:
        found, features = list[Misfit](), self.table_schema.inputs("user", "context", "item")
        if self.data.negatives is None:
            found.append((("data", "negatives"), "a ranker learns from negatives too; say which events are"))
        if not features:
            found.append((("schema", "features"), "there is no feature to rank by; add one"))
        elif model.interaction is not None and not self.embeddings.problems(self.table_schema):
            width = sum(self.embeddings.width(name, feature) for name, feature in features.items())
            found += [(("model", "interaction", key), text) for key, text in model.interaction.problems(width)]
        return found
