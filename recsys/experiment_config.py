"""The configuration of one experiment: every component's config in one, and whether they fit each other."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, NonNegativeInt, model_validator

from recsys.config.base import Config, Misfit, misfits
from recsys.config.digest import digest
from recsys.data.config import DataConfig, DuckDBEngine
from recsys.embeddings.config import EmbeddingsConfig, StoredRows, VectorTable
from recsys.embeddings.optimizers.config import CoupledDecay, DecoupledDecay
from recsys.evaluation.config import EvaluationConfig, InHistorySlices
from recsys.export.config import RetrievalConfig
from recsys.interactions.config import AttentionConfig, CrossConfig, EncoderConfig, SequenceConfig
from recsys.models.config import ComplementsConfig, DistillConfig, ModelConfig, RankerConfig, TwoTowerConfig
from recsys.objectives.config import InBatchSoftmaxConfig, MinedConfig, StreamingConfig
from recsys.schema.config import Categorical, MultiValued, SchemaConfig, Sequence, VocabularyEncoding
from recsys.search.config import SearchConfig
from recsys.tracking.config import TrackingConfig
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
    complements: ComplementsConfig | None = None
    """A second index in a two_tower's bundle: what goes with an item. Its vectors are trained at export."""
    search: SearchConfig = SearchConfig()
    """How `recsys search` looks for smaller tables; nothing else reads it."""
    tracking: TrackingConfig = TrackingConfig()
    """Who is told of the run."""

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
            "complements": None,
            "search": SearchConfig(),
            "tracking": TrackingConfig(),
        }
        return digest(self.model_copy(update=parts))

    @property
    def mined(self) -> MinedConfig | None:
        """The hard negatives that training mines, if it mines any."""
        loss = self.model.loss if isinstance(self.model, TwoTowerConfig) else None
        return loss.mined if isinstance(loss, InBatchSoftmaxConfig) else None

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        found: list[Misfit] = [
            (("embeddings", *key.split(".")), text) for key, text in self.embeddings.problems(self.table_schema)
        ]
        found += self._data_problems() + self._table_problems() + self._model_problems()
        if self.complements is not None:
            found += self._complement_problems(self.complements)
        found += [(("evaluation", *key), text) for key, text in self.evaluation.problems(self.table_schema)]
        if found:
            raise misfits(found)
        return self

    def _data_problems(self) -> list[Misfit]:
        found = list[Misfit]()
        for key, what, columns in self.data.lacks(self.table_schema):
            cure = "use random" if key == ("split", "kind") else "remove it"
            found.append((("data", *key), f"{what} needs {columns}; name the column, or {cure}"))
        if self.table_schema.propensity is not None and self.data.sampled_negatives is not None:
            text = "schema.propensity says how probable what was logged was, and these are drawn; remove one of the two"
            found.append((("data", "sampled_negatives"), text))
        return found

    def _complement_problems(self, complements: ComplementsConfig) -> list[Misfit]:
        found = list[Misfit]()
        if isinstance(self.model, RankerConfig):
            found.append((("complements",), "stand in the bundle of a two_tower, and this is a ranker; remove it"))
        if self.table_schema.timestamp is None:
            text = "what came after what needs schema.timestamp; name the column, or remove this"
            found.append((("complements",), text))
        if complements.optimizer.decay is not None:
            text = "these vectors are trained without decay; remove it"
            found.append((("complements", "optimizer", "decay"), text))
        return found

    def _table_problems(self) -> list[Misfit]:
        """What a table asks of the model and of the devices."""
        found = list[Misfit]()
        if self._reader is None:
            for name in self._kept_sequences():
                key = "model.sequence" if isinstance(self.model, RankerConfig) else "model.query.sequence"
                text = f"the {self.model.kind} has no layer that reads a sequence; choose mean, sum or sqrtn"
                found.append((("embeddings", "features", name, "pooling"), f"{text}, or give it one: {key}"))
        if self.training.schedule is not None and (sleepers := self._tables_that_catch_up()):
            text = f"the decay of {', '.join(sleepers)} makes up for steps that a row slept through as if the learning "
            found.append((("training", "schedule"), f"{text}rate had been constant; remove one of the two"))
        if self.training.strategy == "parameter_server":
            for name, table in self.embeddings.tables.items():
                if isinstance(table, StoredRows) and table.precision != "float32":
                    text = f"{table.precision} rows cannot be cut over parameter servers; train in float32"
                    found.append((("embeddings", "tables", name, "precision"), text))
            if self.embeddings.plan is not None:
                text = "tables under a plan cannot be cut over parameter servers; train on one machine or mirrored"
                found.append((("embeddings", "plan"), text))
        return found

    def _tables_that_catch_up(self) -> list[str]:
        """Those whose rows decay while no batch reads them."""
        found = list[str]()
        for name, table in self.embeddings.tables.items():
            frozen = isinstance(table, VectorTable) and table.train == "frozen"
            if not frozen and isinstance(self.embeddings.optimizer_of(name).decay, CoupledDecay | DecoupledDecay):
                found.append(name)
        return found

    @property
    def _reader(self) -> SequenceConfig | EncoderConfig | None:
        """Of histories that stay sequences."""
        return self.model.sequence if isinstance(self.model, RankerConfig) else self.model.query.sequence

    def _model_problems(self) -> list[Misfit]:
        model, found = self.model, list[Misfit]()
        if self.training.examples == "sequences":
            found += self._windows_problems()
        if isinstance(model, RankerConfig):
            return found + self._ranker_problems(model)
        if self.training.xla:
            found.append((("training", "xla"), "compiles rankers, and this is a two_tower; remove it"))
        if model.item.distill is not None:
            found += self._distill_problems(model.item.distill)
        for entity in ("user", "item"):
            if entity not in self.table_schema.ids:
                text = "null, but a two_tower recommends items to users; name the column, or choose kind: ranker"
                found.append((("schema", entity), text))
        for at, each in enumerate(self.evaluation.slices):
            if isinstance(each, InHistorySlices):
                text = "in_history divides the examples of a ranker, and a two_tower ranks whole catalogues; remove it"
                found.append((("evaluation", "slices", str(at)), text))
        if self.table_schema.propensity is not None and self.data.negatives is None:
            text = "off-policy estimates need the events without reward too; say in data.negatives which they are"
            found.append((("schema", "propensity"), text))
        found += self._loss_problems(model) + self._ssl_problems(model)
        widths, sound = {}, not self.embeddings.problems(self.table_schema)
        for name, tower, features in (
            ("query", model.query, self.table_schema.inputs("user", "context")),
            ("item", model.item, self.table_schema.inputs("item")),
        ):
            if not features:
                found.append((("schema", "features"), f"the {name} tower has no feature; add one"))
            elif sound:
                embedded = sum(self.embeddings.width(feature, f) for feature, f in features.items())
                if name == "query" and model.query.sequence is not None:
                    found += self._encoder_problems(model.query.sequence)
                    embedded += model.query.sequence.width(self._event_width())
                widths[name] = tower.width(embedded)
        if len(set(widths.values())) > 1:
            text = f"the query tower ends in {widths['query']} units, the item tower in {widths['item']}"
            found.append((("model",), f"{text}; set both towers' output_dim to one width"))
        elif widths:
            width, rank = widths["item"], self.retrieval.min_rank
            found += [(("model", "matryoshka"), text) for text in model.prefix_problems(width)]
            if rank is not None and rank > width:
                found.append((("retrieval", "min_rank"), f"{rank:g} of vectors of {width} numbers; lower it"))
        return found

    def _loss_problems(self, model: TwoTowerConfig) -> list[Misfit]:
        """What a loss asks of the training."""
        found, loss, place = list[Misfit](), model.loss, ("model", "loss")
        asynchronous = self.training.strategy == "parameter_server"
        if not isinstance(loss, InBatchSoftmaxConfig):
            return found
        if asynchronous and isinstance(loss.log_q, StreamingConfig):
            text = "steps of parameter servers have no order, so intervals mean nothing; choose counts"
            found.append(((*place, "log_q", "kind"), text))
        candidates = self.training.batch_size + loss.uniform_negatives
        if loss.hardest is not None and loss.hardest >= candidates:
            text = f"{loss.hardest} of a batch's {candidates} candidates are all; lower it, or remove it"
            found.append(((*place, "hardest"), text))
        if loss.mined is None:
            return found
        if asynchronous:
            text = "parameter servers train in no epochs of one order; remove it, or choose another training.strategy"
            found.append(((*place, "mined"), text))
        if loss.mined.from_epoch > self.training.epochs:
            text = f"{loss.mined.from_epoch}, but there are {self.training.epochs} epochs: nothing is mined; lower it"
            found.append(((*place, "mined", "from_epoch"), text))
        if self.training.early_stopping is None:
            text = "null, but model.loss.mined may find what users want next, and only validation shows; set it"
            found.append((("training", "early_stopping"), text))
        return found

    def _ssl_problems(self, model: TwoTowerConfig) -> list[Misfit]:
        """What a regulariser asks of the items' features."""
        found, ssl, place = list[Misfit](), model.ssl, ("model", "ssl")
        if ssl is None:
            return found
        schema, features = self.table_schema, self.table_schema.inputs("item")
        if ssl.augmentation == "correlated" and ssl.ids == "excluded":
            names = [name for name in features if schema.column(name) != schema.item]
        else:
            names = list(features)
        least = {"correlated": 3, "random": 2, "none": 0}[ssl.augmentation]
        if len(names) < least:
            there = f"{len(names)} ({', '.join(names)})" if names else "none"
            which = "item features beside the id" if len(names) < len(features) else "item features"
            text = f"{ssl.augmentation} masks divide {least} or more {which}, and there are {there}"
            cure = "add features, or choose none" if least == 2 else "add features, or choose random or none"
            found.append(((*place, "augmentation"), f"{text}; {cure}"))
        if ssl.value_dropout and not any(isinstance(feature, MultiValued) for feature in features.values()):
            text = "no item feature has several values, of which some could be dropped; set it to 0"
            found.append(((*place, "value_dropout"), text))
        if model.item.activation == "dice":
            text = "dice follows the batch, and model.ssl sends other items through this tower; choose relu"
            found.append((("model", "item", "activation"), text))
        return found

    def _ranker_problems(self, model: RankerConfig) -> list[Misfit]:
        found, features = list[Misfit](), self.table_schema.inputs("user", "context", "item")
        if self.data.negatives is None and self.data.sampled_negatives is None:
            text = "a ranker learns from negatives too; say which events are, or have data.sampled_negatives drawn"
            found.append((("data", "negatives"), text))
        for name in sorted(model.further_heads.keys() - self.data.labels.keys()):
            there = ", ".join(["label", *self.data.labels])
            text = f"there is no label {name!r}, only {there}; add data.labels.{name}, or remove this head"
            found.append((("model", "heads", name), text))
        if not features:
            found.append((("schema", "features"), "there is no feature to rank by; add one"))
        elif not self.embeddings.problems(self.table_schema):
            found += self._interaction_problems(model) + self._sequence_problems(model)
        return found

    def _interaction_problems(self, model: RankerConfig) -> list[Misfit]:
        features = self.table_schema.inputs("user", "context", "item")
        widths = {name: self.embeddings.width(name, feature) for name, feature in features.items()}
        place = ("model", "interaction")
        if isinstance(model.interaction, CrossConfig):
            width = sum(widths.values())
            if model.sequence is not None:
                return []  # the history's part is known to the layer alone, which says so itself
            return [((*place, key), text) for key, text in model.interaction.problems(width)]
        fields = {name: width for name, width in widths.items() if width}
        if model.interaction is None or len(set(fields.values())) == 1:
            return []
        text = ", ".join(f"{name} {width}" for name, width in fields.items())
        cure = "choose one width; for numbers and vectors by embeddings.features.NAME.projection"
        return [(place, f"{model.interaction.kind} needs fields of one width, and they are {text}; {cure}")]

    def _sequence_problems(self, model: RankerConfig) -> list[Misfit]:
        kept, place = self._kept_sequences(), ("model", "sequence")
        if model.sequence is None:
            return []
        found = self._side_by_side_problems(place)
        for name, each in kept.items():
            own, target = (self.embeddings.row_width_of(reader) for reader in (name, each.of))
            if own != target:
                text = f"{own} numbers an event, but its target {each.of!r} has {target}; let both read one table"
                found.append((("embeddings", "features", name, "table"), text))
        decoupled = [name for name in kept if self.embeddings.features[name].attention_table is not None]
        if isinstance(model.sequence, AttentionConfig):
            found += [((*place, key), text) for key, text in model.sequence.problems(bool(decoupled))]
            return found
        for name in decoupled:
            text = f"sequence: {model.sequence.kind} searches no table; remove it, or choose kind: attention"
            found.append((("embeddings", "features", name, "attention_table"), text))
        return found

    def _side_by_side_problems(self, place: tuple[str, ...]) -> list[Misfit]:
        kept = self._kept_sequences()
        if not kept:
            return [(place, "no history stays a sequence; set embeddings.features.NAME.pooling: none for one")]
        lengths = {name: self.embeddings.features[name].max_length or each.max_length for name, each in kept.items()}
        if len(set(lengths.values())) == 1:
            return []
        text = ", ".join(f"{name} {length}" for name, length in lengths.items())
        return [(place, f"histories are read side by side, but their lengths differ: {text}; choose one")]

    def _encoder_problems(self, encoder: EncoderConfig) -> list[Misfit]:
        place = ("model", "query", "sequence")
        found = self._side_by_side_problems(place)
        if not found:
            found += [((*place, key), text) for key, text in encoder.problems(self._event_width())]
        for name, entry in self.embeddings.features.items():
            if entry.attention_table is not None:
                text = "only target attention searches, and a two_tower has none; remove it, or choose kind: ranker"
                found.append((("embeddings", "features", name, "attention_table"), text))
        return found

    def _distill_problems(self, distill: DistillConfig) -> list[Misfit]:
        found, place = list[Misfit](), ("model", "item", "distill", "unknown")
        items = self.table_schema.inputs("item")
        for name in distill.unknown:
            feature = items.get(name)
            if not isinstance(feature, Categorical) or not isinstance(feature.encoding, VocabularyEncoding):
                text = f"{name!r} is no item feature of one value with a vocabulary; name such ones, the ids"
                found.append((place, text))
        if not found and items.keys() <= set(distill.unknown):
            found.append((place, "nothing is left that the teacher could explain; leave a feature of content out"))
        return found

    def _event_width(self) -> int:
        """Numbers in all of an event's vectors."""
        return sum(self.embeddings.row_width_of(name) for name in self._kept_sequences())

    def _windows_problems(self) -> list[Misfit]:
        """What learning from windows of histories asks for."""
        found, place = list[Misfit](), ("training", "examples")
        if isinstance(self.model, RankerConfig) or self.model.query.sequence is None:
            text = "sequences are learned from by a two_tower's model.query.sequence, and there is none; use events"
            return [(place, text)]
        kept = self._kept_sequences()
        for name, feature in self.table_schema.features.items():
            if not isinstance(feature, Sequence):
                continue
            if name not in kept:
                text = (
                    "a pooled history has one vector, not one at each place; set `none`, or training.examples: events"
                )
                found.append((("embeddings", "features", name, "pooling"), text))
            elif self.embeddings.features[name].max_length not in (None, feature.max_length):
                text = f"windows have the schema's length; set schema.features.{name}.max_length, and leave this out"
                found.append((("embeddings", "features", name, "max_length"), text))
        if self.training.strategy != "default":
            text = "windows hold unequal numbers of examples, which replicas cannot gather; use default"
            found.append((("training", "strategy"), text))
        return found

    def _kept_sequences(self) -> dict[str, Sequence]:
        """Histories with `pooling: none`."""
        entries = self.embeddings.features
        return {
            name: feature
            for name, feature in self.table_schema.features.items()
            if isinstance(feature, Sequence) and name in entries and entries[name].pooling == "none"
        }
