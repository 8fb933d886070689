"""What the labels of a prepared folder must be, before anything is trained on them or measured by them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import PARTS, Part, label_column
from recsys.data.prepared import Prepared
from recsys.errors import DataError, Problem
from recsys.evaluation.leaked_statistics import PREPARE_AGAIN
from recsys.evaluation.shards import shards


def check_labels(prepared: Prepared, *, both: Collection[Part] = ()) -> None:
    """Labels are 0 or 1, further ones also unknown; the parts `both` hold both, as what trains a ranker or measures it.

    Raises:
        DataError: they are not; one problem for each part and label.
    """
    problems = [problem for part in PARTS for problem in _problems(prepared, part, part in both)]
    if problems:
        raise DataError(problems)


def _problems(prepared: Prepared, part: Part, both: bool) -> Iterator[Problem]:
    further = [label_column(name) for name in prepared.info.labels]
    strange, weight = dict.fromkeys(["label", *further], 0), np.zeros(2)
    for rows in shards(prepared, part, ["weight", *strange]):
        for column in strange:
            strange[column] += _strange(rows[column], column in further)
        weight += [rows["weight"][rows["label"] == each].sum() for each in (0, 1)]
    place, total = f"{prepared.info.name}: {part}", getattr(prepared.info.counts, part)
    for column, count in strange.items():
        if count:
            wanted = "0, 1 or NaN (unknown)" if column in further else "0 or 1"
            text = f"{count} of {total} examples have another {column} than {wanted}"
            yield Problem(place, text, f"every {column} {wanted}", PREPARE_AGAIN)
    if both and not any(strange.values()) and not weight.all():
        cure = "change data.positives or data.negatives, or enlarge the share in data.split"
        found = f"all {total} examples that weigh anything have label {int(np.argmax(weight))}"
        yield Problem(place, found, "both positives and negatives", cure)


def _strange(labels: NDArray, may_be_unknown: bool) -> int:
    sound = np.isin(labels, (0, 1))
    return int(np.count_nonzero(~(sound | np.isnan(labels)) if may_be_unknown else ~sound))
