"""Items with their raw features, from a file or from requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from recsys.bundle.manifest import CategoricalField, Manifest, MultiValuedField, NumericField, RawField
from recsys.bundle.requests import RequestEncoder, text_of
from recsys.bundle.table_file import read_table
from recsys.bundle.users import RAW
from recsys.errors import DataError, Problem, RequestError

ID, TITLE = "item", "title"


@dataclass(frozen=True)
class NewItems:
    """m items.

    Attributes:
        ids: of the items, each once.
        titles: of them; None where there is none.
        features: raw values by feature, as a request carries them.
        fields: what is known of the features.
    """

    ids: list[str]
    titles: list[str | None]
    features: list[dict[str, Any]]
    fields: Mapping[str, RawField]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], manifest: Manifest) -> Self:
        """From rows of `item`, `title` (may be left out) and raw features by name, of which those that are the id
        itself may be left out.

        Raises:
            RequestError: with a problem for each row without an id, id that comes twice, and value that does not fit
                its feature.
        """
        fields, columns = manifest.item | manifest.described, manifest.item_columns
        of_id = [each for each in fields if columns.get(each, each) == columns.get(ID, ID)]
        problems, ids, titles, features = list[Problem](), list[str](), list[str | None](), list[dict[str, Any]]()
        seen = set[str]()
        for at, row in enumerate(rows):
            try:
                name = text_of(row.get(ID), f"items[{at}].{ID}")
            except RequestError as error:
                problems += error.problems
                continue
            if not name or name in seen:
                found = f"{name!r} twice" if name else "no id"
                problems.append(Problem(f"items[{at}].{ID}", found, "an id, each once", "leave the other out"))
            seen.add(name)
            title = row.get(TITLE)
            if not isinstance(title, str | None):
                problems.append(Problem(f"items[{at}].{TITLE}", f"{title!r}", "text or null", "send text"))
            ids.append(name)
            titles.append(title or None)
            own = {key: value for key, value in row.items() if key in fields or key not in (ID, TITLE)}
            features.append(dict.fromkeys(of_id, name) | own)
        if problems:
            raise RequestError(problems)
        RequestEncoder(fields).check(features, "items")
        return cls(ids, titles, features, fields)

    def inputs(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """What the item tower reads of each."""
        return [{name: row[name] for name in names if name in row} for row in self.features]

    @classmethod
    def read(cls, path: Path, manifest: Manifest) -> Self:
        """From a Parquet, CSV or JSON-lines file with the columns of the source's table of items, or named `item`,
        `title` and by feature. Other columns are left alone.

        Raises:
            DataError: the file cannot be read, or lacks a column.
            RequestError: as `of` says.
        """
        table, columns, fields = read_table(path, "items"), manifest.item_columns, manifest.item | manifest.described
        wanted = {name: columns.get(name, name) for name in (ID, TITLE, *fields)}
        found = {}
        for name, column in wanted.items():
            there = next((each for each in (column, name) if each in table.column_names), None)
            if there is not None:
                found[name] = table[there].to_pylist()
            elif name != TITLE:
                there_are = ", ".join(table.column_names)
                raise DataError(
                    str(path),
                    f"no column {column!r} for {name}",
                    f"one beside {there_are}",
                    "add it, null where unknown",
                )
        for name, separator in manifest.item_separators.items():
            found[name] = [v.split(separator) if isinstance(v, str) else v for v in found[name]]
        for name, field in fields.items():
            found[name] = [_canonical(field, value) for value in found[name]]
        rows = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
        return cls.of(rows, manifest)

    def table(self, schema: pa.Schema) -> pa.Table:
        """As rows of `items.parquet`, whose `schema` it has."""
        columns: dict[str, list[Any]] = {ID: self.ids, TITLE: self.titles}
        for name, field in self.fields.items():
            values = [row.get(name) for row in self.features]
            columns[f"{RAW}{name}"] = [stored(field, value) for value in values]
        none = [None] * len(self.ids)
        arrays = {name: columns.get(name, none) for name in schema.names}
        arrays |= {"deleted": [False] * len(self.ids)} if "deleted" in schema.names else {}
        return pa.table({name: pa.array(values, schema.field(name).type) for name, values in arrays.items()}, schema)


def _canonical(field: RawField, value: Any) -> Any:
    """Text of a CSV as the number that a numeric feature is."""
    if isinstance(field, NumericField) and isinstance(value, str):
        try:
            return float(value) if value else None
        except ValueError:
            return value  # and the check says what is wrong with it
    return value


def stored(field: RawField, value: Any) -> Any:
    """A raw value as a bundle's tables hold it."""
    if value is None or value == "":
        return None
    if isinstance(field, CategoricalField):
        return text_of(value, "")
    if isinstance(field, MultiValuedField):
        return [text_of(each, "") for each in value if each is not None and each != ""]
    return value
