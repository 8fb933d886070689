"""Sampled negatives: items outside a user's positives, drawn without rejection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from recsys.data.config import SampledNegatives
from recsys.data.dataset import label_column
from recsys.data.prepare.events import DIGEST_LENGTH
from recsys.data.prepare.write import regrouped
from recsys.errors import DataError

BLOCK = 65_536
"""Positives that are mixed with their negatives at once. Not `rows_per_group`: that changes no row and no order."""

KEY = "example.digest"
"""The column that draws depend on; no feature can have this name."""

Keys = NDArray[np.uint64]
Integers = NDArray[np.int64]


class Outside:
    """The items outside each user's own ones.

    A user's outside is a line: her own items are cut out of the catalogue, and every other item is a piece as long as
    its weight. A draw is a place on that line, so none has to be thrown away, however many items the user has.

    Args:
        weights: [N] of each item, whole numbers; an item of weight 0 is never drawn.
        users: [P] rising, each with the item of the same row: distinct pairs.
        items: [P] rising for each user.
        count: the number of users.
    """

    def __init__(self, weights: Integers, users: NDArray[np.int32], items: NDArray[np.int32], count: int) -> None:
        drawable = weights[items] > 0
        users, items = users[drawable], items[drawable]
        self._weights = weights
        self._ends = np.cumsum(weights)
        self._first = np.searchsorted(users, np.arange(count + 1))
        """[count + 1] where each user's own items begin."""
        self._cut = np.concatenate([[0], np.cumsum(weights[items])])
        """[P + 1] weight of all own items before each."""
        self._span = int(self._ends[-1]) + 1
        place = self._ends[items] - weights[items] - (self._cut[:-1] - self._cut[self._first[users]])
        self._places = users.astype(np.int64) * self._span + place
        """[P] where each own item is cut out of its user's line; the lines stand one after the other."""

    def sizes(self, users: NDArray[np.integer]) -> Integers:
        """[n] how many items can be drawn for each user."""
        own = self._first[users + 1] - self._first[users]
        return np.count_nonzero(self._weights) - own

    def draw(self, keys: Keys, users: NDArray[np.integer], count: int) -> NDArray[np.int32]:
        """[n, count] distinct items for each row, one after the other, each in proportion to its weight among the rest.

        Args:
            keys: [n] what each row's draws depend on.
            users: [n] whose outside; has at least `count` items.
        """
        drawn = np.empty((len(users), count), np.int32)
        begins, lengths = np.empty((2, len(users), count), np.int64)
        for nth in range(count):
            left = self._length(users) - lengths[:, :nth].sum(axis=1)
            place = (noise(keys, nth) % left.astype(np.uint64)).astype(np.int64)
            order = np.argsort(begins[:, :nth], axis=1)
            for earlier in order.T:  # steps over the pieces drawn before, from left to right
                begin, length = (np.take_along_axis(x, earlier[:, None], axis=1)[:, 0] for x in (begins, lengths))
                place += np.where(place >= begin, length, 0)
            drawn[:, nth], begins[:, nth] = self._at(users, place)
            lengths[:, nth] = self._weights[drawn[:, nth]]
        return drawn

    def _length(self, users: NDArray[np.integer]) -> Integers:
        return self._ends[-1] - (self._cut[self._first[users + 1]] - self._cut[self._first[users]])

    def _at(self, users: NDArray[np.integer], place: Integers) -> tuple[Integers, Integers]:
        """The item at a place of the user's line, and where its piece begins."""
        cuts = np.searchsorted(self._places, users.astype(np.int64) * self._span + place, side="right")
        skipped = self._cut[cuts] - self._cut[self._first[users]]
        item = np.searchsorted(self._ends, place + skipped, side="right")
        return item, self._ends[item] - self._weights[item] - skipped


class NegativeSampler:
    """Mixes examples with their sampled negatives.

    Args:
        config: how many, and how.
        outside: the items that are drawn from.
        users: [U] ids, for messages.
    """

    def __init__(self, config: SampledNegatives, outside: Outside, users: pa.StringArray) -> None:
        self._count = config.per_positive
        self._outside = outside
        self._users = users

    def mixed(self, positives: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows and their negatives in pseudo-random order, without the column `KEY`, on which both depend.

        What is drawn for a row depends on its digest, its user's items and the weights alone. Rows trade places within
        blocks of `BLOCK` positives and their negatives.

        Raises:
            DataError: a user has fewer items outside than negatives are wanted.
        """
        for block in regrouped(positives, BLOCK):
            yield from self._mix(block).to_batches()

    def _mix(self, block: pa.Table) -> pa.Table:
        keys, users = _numbers(block[KEY]), block["user_index"].to_numpy()
        self._check(users)
        own = block["item_index"].to_numpy()
        items = np.column_stack([own, self._outside.draw(keys, users, self._count)]).ravel()
        row, nth = np.divmod(np.arange(len(items)), 1 + self._count)
        order = np.argsort(noise(keys[row], self._count + nth), kind="stable")
        table = block.drop_columns(KEY).take(pa.array(row[order]))
        drawn = nth[order] > 0
        columns = {"item_index": items[order], "label": (~drawn).astype(np.float32)}
        for name in table.column_names:
            if name.startswith(label_column("")):  # what was not chosen was not liked, bought or watched either
                columns[name] = np.where(drawn, np.float32(0), table[name].to_numpy())
        for name, column in columns.items():
            table = table.set_column(table.column_names.index(name), name, pa.array(column))
        return table

    def _check(self, users: NDArray[np.integer]) -> None:
        sizes = self._outside.sizes(users)
        least = int(np.argmin(sizes))
        if sizes[least] < self._count:
            raise DataError(
                "data.sampled_negatives",
                f"user {self._users[int(users[least])].as_py()!r} leaves {sizes[least]} items to draw from",
                f"at least {self._count}",
                "lower per_positive, choose distribution: uniform, or drop users who have nearly every item",
            )


def noise(keys: Keys, number: ArrayLike) -> Keys:
    """[n] 64 pseudo-random bits, a function of key and number alone: SplitMix64 (Steele et al., OOPSLA 2014)."""
    z = keys + (np.atleast_1d(number).astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _numbers(digests: pa.ChunkedArray) -> Keys:
    """[n] digests (lower-case hexadecimal) as numbers."""
    letters = digests.to_numpy().astype(f"S{DIGEST_LENGTH}").view(np.uint8).reshape(-1, DIGEST_LENGTH)
    digits = np.where(letters >= ord("a"), letters - ord("a") + 10, letters - ord("0")).astype(np.uint64)
    return digits @ (np.uint64(16) ** np.arange(DIGEST_LENGTH, dtype=np.uint64)[::-1])
