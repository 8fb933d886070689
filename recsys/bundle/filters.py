"""Which items of the catalogue a request allows: conditions on their columns, and lists of ids."""

from __future__ import annotations

import difflib
import json
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.bundle.requests import number_problems, shown, text_of
from recsys.bundle.users import RAW
from recsys.errors import Problem, RequestError
from recsys.retrieval.allowed import Allowed

DELETED = "deleted"
"""A column of `items.parquet`, once items have been deleted: whether this one has."""
TRAIN_COUNT = "train_count"
"""A column of `items.parquet`: positive training events of the item; null for one that came later."""
REMEMBERED = 64
"""Filters whose items are remembered: a request that filters like one before it costs nothing."""
EXAMPLE = 'such as {"genre": "drama", "price": {"at_most": 20}, "tags": {"contains": ["new", "red"]}}'
_RANGES = {"at_least": np.greater_equal, "at_most": np.less_equal, "above": np.greater, "below": np.less}
_SETS = ("equals", "in", "not_in")


class ItemFilters:
    """The items that satisfy conditions on their columns, found column by column, and remembered.

    Args:
        items: `items.parquet`. Its columns are known by their features' names.
    """

    def __init__(self, items: pa.Table) -> None:
        self._columns = {
            name.removeprefix(RAW): items[name]
            for name in items.column_names
            if name not in (DELETED, TRAIN_COUNT) and not pa.types.is_fixed_size_list(items[name].type)
        }
        self.there = ~items[DELETED].to_numpy() if DELETED in items.column_names else np.ones(len(items), np.bool_)
        self._found: OrderedDict[str, Allowed] = OrderedDict()
        self._lock = Lock()

    def allowed(self, where: Mapping[str, object]) -> Allowed:
        """The items that satisfy every condition of `where`.

        A condition is a value that the column must equal, a list of which it must equal one, or an object of `equals`,
        `in`, `not_in`, for numbers `at_least`, `at_most`, `above`, `below`, and for columns with several values
        `contains`: all that they must have (`equals` and `in`: one of them at least). What an item lacks equals
        nothing.

        Raises:
            RequestError: with a problem for each column or condition that is not sound.
        """
        try:
            key = json.dumps(where, sort_keys=True, default=repr)
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestError("where", f"is no JSON ({error})", "an object", EXAMPLE) from error
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        found = Allowed(self._all_of(where))
        _ = found.ids
        with self._lock:
            self._found[key] = found
            if len(self._found) > REMEMBERED:
                self._found.popitem(last=False)
        return found

    def _all_of(self, where: Mapping[str, object]) -> NDArray[np.bool_]:
        mask, problems = self.there.copy(), list[Problem]()
        for name, condition in where.items():
            place = f"where.{name}"
            if name not in self._columns:
                close = difflib.get_close_matches(name, self._columns, n=1)
                cure = f"did you mean {close[0]}?" if close else "leave it out"
                known = ", ".join(sorted(self._columns))
                problems.append(Problem(shown(place), "no such column of the items", f"one of {known}", cure))
                continue
            try:
                for operator, value in _operators(place, condition):
                    mask &= _satisfies(place, self._columns[name], operator, value)
            except RequestError as error:
                problems += error.problems
        if problems:
            raise RequestError(problems)
        return mask


def _operators(place: str, condition: object) -> list[tuple[str, Any]]:
    if isinstance(condition, Mapping):
        if not condition:
            raise RequestError(place, "an empty condition", "at least one", EXAMPLE)
        return [(str(operator), value) for operator, value in condition.items()]
    return [("in", condition) if isinstance(condition, list | tuple) else ("equals", condition)]


def _satisfies(place: str, column: pa.ChunkedArray, operator: str, value: object) -> NDArray[np.bool_]:
    """[N] which items do."""
    place = f"{place}.{operator}"
    if pa.types.is_floating(column.type):
        return _number_satisfies(place, column, operator, value)
    several = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    if several and operator == "contains":
        values = _values(place, value if isinstance(value, list | tuple) else [value])
        return np.logical_and.reduce([_has_one(column, [each]) for each in values])
    if operator in _SETS:
        values = _values(place, [value] if operator == "equals" else value)
        found = _has_one(column, values) if several else _is_one(column, values)
        return ~found if operator == "not_in" else found
    known = ", ".join([*_SETS, *(["contains"] if several else [])])
    raise RequestError(shown(place), "no such condition on text", f"one of {known}", "ranges are for numeric features")


def _number_satisfies(place: str, column: pa.ChunkedArray, operator: str, value: object) -> NDArray[np.bool_]:
    numbers = column.to_numpy()
    if operator in _RANGES:
        (bound,) = _numbers(place, [value])
        return _RANGES[operator](numbers, bound)
    if operator in _SETS:
        found = np.isin(numbers, _numbers(place, [value] if operator == "equals" else value))
        return ~found if operator == "not_in" else found
    known = ", ".join([*_SETS, *_RANGES])
    raise RequestError(shown(place), "no such condition on numbers", f"one of {known}", EXAMPLE)


def _values(place: str, values: object) -> list[str]:
    if not isinstance(values, list | tuple) or not values:
        raise RequestError(shown(place), shown(values), "a list with at least one value", "send a JSON list")
    found = [text_of(value, f"{place}[{n}]") for n, value in enumerate(values)]
    if "" in found:
        raise RequestError(shown(place), "a missing value", "values", "what an item lacks equals nothing: leave it out")
    return found


def _numbers(place: str, values: object) -> NDArray[np.float32]:
    if not isinstance(values, list | tuple) or not values:
        raise RequestError(shown(place), shown(values), "a list with at least one number", "send a JSON list")
    problems = [problem for n, value in enumerate(values) for problem in number_problems(f"{place}[{n}]", value)]
    problems += [Problem(shown(place), "null", "a number", "leave it out") for value in values if value is None]
    if problems:
        raise RequestError(problems)
    return np.array(values, np.float32)


def _is_one(texts: pa.ChunkedArray, values: list[str]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.is_in(texts, value_set=pa.array(values, texts.type)).to_numpy()
    return found


def _has_one(lists: pa.ChunkedArray, values: list[str]) -> NDArray[np.bool_]:
    """[N] whether a list holds one of the values."""
    whole = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    members = pc.list_flatten(whole)
    there = pc.is_in(members, value_set=pa.array(values, members.type)).to_numpy(zero_copy_only=False)
    found = np.zeros(len(lists), np.bool_)
    found[pc.list_parent_indices(whole).to_numpy()[there]] = True
    return found
