"""Embedding plans: which rows and which numbers of full tables are kept. Every search ends in one; training with it
builds tables that are so small.

A plan is a folder: `plan.json`, for people too, and the arrays that it names. Of each table it says for each vocabulary
how consecutive ranges of ids, *blocks*, are stored. Vocabularies go by falling training count (missing and OOV ids
come first), so a block is a range of frequencies. A block is rows of one width (`RowBlock`) or single numbers
(`ElementBlock`). What is not kept is zero: the smaller table is the full one under a mask, bit for bit.

Missing and OOV ids, and buckets of numbers, are ids like others here. Searches that go by frequency keep them, as
nobody has counted them.

Importing this needs no TensorFlow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from recsys.config.base import Config, Many
from recsys.config.digest import digest
from recsys.data.dataset import CategoricalInfo, FeatureInfo, NumericInfo
from recsys.embeddings.config import Precision
from recsys.embeddings.sidecar import FILES, FOLDER, Bits, Floats
from recsys.errors import DataError, Problem
from recsys.files import new_folder

PLAN = "plan.json"
SIZES: dict[Precision, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a number; int8 has a byte for each and two for the row's scale."""


class Origin(Config):
    """Where a plan comes from. No table depends on it."""

    method: str
    """uniform, frequency_cut, optembed, dnis, ..."""
    run: str | None = None
    """Name of the experiment that was searched."""
    config_digest: str | None = None
    data_digest: str | None = None
    seed: int | None = None
    budget: PositiveInt | None = None
    """Bytes that it was to keep to."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """What the search measured."""
    notes: str = ""


class RowBlock(Config):
    """Ids whose rows have one width, the same coordinates of the full row each; perhaps not all ids have a row."""

    form: Literal["rows"] = "rows"
    ids: PositiveInt
    """How many."""
    coordinates: NonNegativeInt | Many[NonNegativeInt]
    """A number is a prefix of the full row, a list any rising coordinates. 0, or none, prunes all ids."""
    kept: Bits | None = None
    """[ids] which of the ids have a row; left out, all do."""
    pruned: Literal["zero", "shared"] = "zero"
    """What the others read: zeros; or one row, the block's own, which starts at zero and is trained."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.kept is not None and self.kept.shape != (self.ids,):
            raise ValueError(f"{self.ids} ids, but `kept` has the shape {self.kept.shape}")
        if any(late <= early for early, late in zip(self.columns, self.columns[1:], strict=False)):
            raise ValueError("coordinates must rise")
        return self

    @property
    def columns(self) -> tuple[int, ...]:
        """The coordinates that rows have."""
        return tuple(range(self.coordinates)) if isinstance(self.coordinates, int) else self.coordinates

    @cached_property
    def kept_rows(self) -> int:
        """Ids with a row of their own."""
        if not self.columns:
            return 0
        return self.ids if self.kept is None else int(self.kept.sum())

    @property
    def stored_rows(self) -> int:
        """The rows of those ids, and the shared one where there is one."""
        return self.kept_rows + int(self.shares)

    @property
    def shares(self) -> bool:
        """Whether pruned ids read a row that they share."""
        return self.pruned == "shared" and bool(self.columns) and self.kept_rows < self.ids

    @property
    def is_scattered(self) -> bool:
        """Whether kept and pruned ids take turns, so that bits must say which is which."""
        return 0 < self.kept_rows < self.ids

    @property
    def numbers(self) -> int:
        """Kept numbers of the full rows."""
        return self.kept_rows * len(self.columns)

    def mask(self, dim: int) -> NDArray[np.bool_]:
        """[ids, dim] the kept numbers of the full rows."""
        found = np.zeros((self.ids, dim), bool)
        found[:, list(self.columns)] = True
        return found if self.kept is None else found & self.kept[:, np.newaxis]


class ElementBlock(Config):
    """Ids of whose rows single numbers are kept."""

    form: Literal["elements"] = "elements"
    kept: Bits
    """[ids, dim]"""

    @property
    def ids(self) -> int:
        """How many."""
        return len(self.kept)

    @cached_property
    def kept_rows(self) -> int:
        """Ids of which a number is kept."""
        return int(self.kept.any(1).sum())

    @cached_property
    def numbers(self) -> int:
        """Kept numbers of the full rows."""
        return int(self.kept.sum())

    def mask(self, dim: int) -> NDArray[np.bool_]:
        """[ids, dim] the kept numbers of the full rows."""
        return self.kept


Block = Annotated[RowBlock | ElementBlock, Field(discriminator="form")]


class VocabularyPlan(Config):
    """What is kept of the rows of one vocabulary."""

    digest: str
    """From `vocabulary_digest`."""
    blocks: Many[Block]
    """In the order of the ids, all of them."""
    weights: Floats | None = None
    """[n] where the kept numbers start, by row and then by coordinate; left out, where those of the full table would
    from the same seed.
    """

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not self.blocks:
            raise ValueError("no blocks; at least one")
        numbers = sum(block.numbers for block in self.blocks)
        if self.weights is not None and self.weights.shape != (numbers,):
            raise ValueError(f"{numbers} numbers are kept, but `weights` has the shape {self.weights.shape}")
        return self

    @property
    def ids(self) -> int:
        """How many."""
        return sum(block.ids for block in self.blocks)

    def mask(self, dim: int) -> NDArray[np.bool_]:
        """[ids, dim] the kept numbers of the full rows."""
        return np.concatenate([block.mask(dim) for block in self.blocks])


class TablePlan(Config):
    """What is kept of one full table."""

    dim: PositiveInt
    """Of the full table, and of all vectors that are looked up."""
    vocabularies: dict[str, VocabularyPlan] = Field(min_length=1)
    """By the feature that has it; a history reads its item feature's."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for name, vocabulary in self.vocabularies.items():
            for number, block in enumerate(vocabulary.blocks):
                if isinstance(block, RowBlock):
                    widest = max(block.columns, default=-1) + 1
                else:
                    widest = block.kept.shape[1] if block.kept.ndim == 2 else -1
                if widest > self.dim or (isinstance(block, ElementBlock) and widest != self.dim):
                    raise ValueError(f"block {number} of {name!r} is {widest} wide, the table {self.dim}")
        return self

    @property
    def blocks(self) -> list[RowBlock | ElementBlock]:
        """Of all vocabularies."""
        return [block for vocabulary in self.vocabularies.values() for block in vocabulary.blocks]

    def bytes(self, precision: Precision = "float32") -> int:
        """Of the exported arrays, indices included:

            Σ_row blocks rows · row  +  numbers of element blocks · size
            + 20 ⌈ids of scattered row blocks / 128⌉  +  20 ⌈ids of element blocks · dim / 128⌉

        `rows` are the kept ones and the shared one; `row` is width · size, for int8 width + 2 (the scale). A block is
        scattered if it keeps some of its ids' rows and prunes others; of element blocks those count that keep anything.
        Beside that a graph holds the blocks' bounds,
        some bytes a block.
        """
        rows = [block for block in self.blocks if isinstance(block, RowBlock)]
        elements = [block for block in self.blocks if isinstance(block, ElementBlock) and block.numbers]
        size = SIZES.get(precision, 1)
        scale = 2 if precision == "int8" else 0
        stored = sum(block.stored_rows * (size * len(block.columns) + scale) for block in rows)
        stored += size * sum(block.numbers for block in elements)
        scattered = sum(block.ids for block in rows if block.is_scattered)
        return stored + bitmap_bytes(scattered) + bitmap_bytes(sum(block.ids for block in elements) * self.dim)

    @property
    def full_bytes(self) -> int:
        """Of the full table, in float32."""
        return sum(4 * block.ids * self.dim for block in self.blocks)


class EmbeddingPlan(Config):
    """What is kept of the full tables of a config; tables that it does not name stay full."""

    format: Literal[1] = 1
    origin: Origin
    tables: dict[str, TablePlan] = Field(min_length=1)

    @cached_property
    def digest(self) -> str:
        """Of all that a model depends on: where a plan comes from does not matter."""
        return digest(self.model_copy(update={"origin": Origin(method="")}))

    def bytes(self, precisions: Mapping[str, Precision] | None = None) -> int:
        """Of the exported arrays of its tables, indices included (see `TablePlan.bytes`).

        Args:
            precisions: `served_precision` of tables that are not served in float32.
        """
        return sum(table.bytes((precisions or {}).get(name, "float32")) for name, table in self.tables.items())

    @property
    def full_bytes(self) -> int:
        """Of the full tables, in float32."""
        return sum(table.full_bytes for table in self.tables.values())

    def save(self, folder: Path) -> None:
        """Writes the folder, whole or not at all.

        Raises:
            DataError: there is something already.
        """
        if folder.exists():
            raise DataError(str(folder), "is there already", "a new folder for the plan", "remove it, or name another")
        files: dict[str, bytes] = {}
        text = self.model_dump_json(indent=2, exclude_none=True, context={FILES: files})
        with new_folder(folder) as draft:
            (draft / PLAN).write_text(text + "\n", encoding="utf-8")
            for name, content in files.items():
                (draft / name).write_bytes(content)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads a folder, or its `plan.json`, and checks every array against its digest.

        Raises:
            DataError: there is no plan, or it is damaged; a problem for each fault.
        """
        path = folder if folder.name == PLAN else folder / PLAN
        try:
            return cls.model_validate_json(path.read_bytes(), context={FOLDER: path.parent})
        except OSError as error:
            expected = f"a plan's folder, with {PLAN}"
            raise DataError(str(path), "no such plan", expected, "recsys search makes plans") from error
        except ValidationError as error:
            raise DataError(_faults(path, error)) from error


def bitmap_bytes(bits: int) -> int:
    """Of the pages that hold so many bits (see `bitmap.py`)."""
    return 20 * -(-bits // 128)


def vocabulary_digest(info: FeatureInfo, values: Callable[[], NDArray[np.object_]]) -> str:
    """SHA-256 (hex) of what the ids of a vocabulary stand for, in their order: texts, or a number's buckets.

    Args:
        info: of the feature that has the vocabulary.
        values: gives the text of each id after the missing and OOV ids.
    """
    if isinstance(info, NumericInfo):
        meaning: list[object] = ["buckets", *info.boundaries]
    else:
        assert isinstance(info, CategoricalInfo)
        meaning = ["values", info.oov_rows, *values().tolist()]
    return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()


def _faults(path: Path, error: ValidationError) -> Iterator[Problem]:
    for fault in error.errors(include_url=False):
        key = ".".join(map(str, fault["loc"]))
        text = fault["msg"].removeprefix("Value error, ")
        place = f"{path}: {key}" if key else str(path)
        yield Problem(place, text, "what recsys wrote there", "bring the plan's folder back whole, or search again")
