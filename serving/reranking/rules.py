"""From ranked candidates to the list that is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.bundle.filters import DELETED
from recsys.bundle.requests import text_of
from recsys.bundle.users import Texts
from recsys.errors import ConfigError
from recsys.retrieval.allowed import Allowed
from recsys.retrieval.index import Vectors
from serving.reranking.caps import Caps
from serving.reranking.config import Id, RulesConfig
from serving.reranking.diversity import Marginal
from serving.reranking.exploration import draw

Rows = NDArray[np.int64]
NONE: Rows = np.empty(0, np.int64)


@dataclass(frozen=True)
class Candidates:
    """C candidates, the best first, each once.

    Attributes:
        items: [C] item indices.
        scores: [C] finite; of the ranker, or of the retrieval without one.
        vectors: [C, d] of the items, for diversity; None where the rules ask for none (`Rules.needs_vectors`).
    """

    items: NDArray[np.integer]
    scores: NDArray[np.floating]
    vectors: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class Reranked:
    """What is shown, place by place: L items, at most k.

    Attributes:
        items: [L] item indices.
        scores: [L] those of the candidates; NaN for a pinned item that is no candidate.
        propensities: [L] in (0, 1], the probability with which this item was shown at this place.
        pinned: [L] whether it is there by a pin.
        explored: [L] whether it is there by exploration.
    """

    items: Rows
    scores: NDArray[np.float64]
    propensities: NDArray[np.float64]
    pinned: NDArray[np.bool_]
    explored: NDArray[np.bool_]


class Rules:
    """Rules, bound to a catalogue: `Rules.of(config, items, vectors)`, anew whenever items come, change or go. They
    hold nothing that changes, and serve any number of threads.
    """

    def __init__(self, config: RulesConfig, caps: Caps, banned: Rows, pins: _Pins, unknown: tuple[str, ...]) -> None:
        self._config = config
        self._caps = caps
        self._pins = pins
        self.banned = banned
        """Item indices, rising. A retrieval that leaves them out has room for others; here they are left out anyway."""
        self.unknown = unknown
        """Ids of the rules that the catalogue does not have (yet, or any more). They are of no consequence."""

    @classmethod
    def of(cls, config: RulesConfig, items: pa.Table, vectors: Vectors | None = None) -> Self:
        """Args: `items` as in `items.parquet`; `vectors` [N, d] of all of them, if there are any.

        Raises:
            ConfigError: with one problem for each column that cannot be capped; or diversity is asked for without
                vectors.
        """
        if config.diversity is not None and vectors is None:
            raise ConfigError(
                "rules.diversity", "the bundle has no vectors of items", "a two_tower's bundle", "leave it out"
            )
        caps, rows = Caps.of(config.caps, items), Texts(items["item"], "items: column item")
        banned = _found(rows, config.banned)
        pins = sorted(config.pinned, key=lambda pin: pin.place)
        at = _found(rows, [pin.item for pin in pins])
        gone = np.flatnonzero(items[DELETED].to_numpy()) if DELETED in items.column_names else NONE
        shown = (at >= 0) & ~np.isin(at, banned) & ~np.isin(at, gone)
        named = [*config.banned, *(pin.item for pin in pins)]
        unknown = {str(name) for name, row in zip(named, [*banned, *at], strict=True) if row < 0}
        places = np.array([pin.place for pin in pins], np.int64) - 1
        of_pins = None if vectors is None else vectors[at[shown]]
        return cls(
            config, caps, np.unique(banned[banned >= 0]), _Pins(at[shown], places[shown], of_pins), (*sorted(unknown),)
        )

    @property
    def needs_vectors(self) -> bool:
        """Whether candidates must come with vectors."""
        return self._config.diversity is not None

    @property
    def explores(self) -> bool:
        """Whether chance decides, too."""
        return self._config.exploration is not None

    def rerank(
        self,
        candidates: Candidates,
        k: int,
        request_id: str,
        excluded: NDArray[np.integer] = NONE,
        allowed: Allowed | None = None,
    ) -> Reranked:
        """The list of at most `k` items.

        Args:
            candidates: what retrieval and ranker found for the request.
            k: how many items are asked for.
            request_id: exploration is a function of it and the seed.
            excluded: item indices that this user must not see: seen, or excluded by the request.
            allowed: the items that the request's filters let through; None for all.
        """
        candidates = _without(candidates, np.union1d(self.banned, excluded))
        pins = self._pins.shown(k, excluded, allowed)
        order = self._order(candidates, k - len(pins.items), pins)
        plain = _interleaved(order, pins, candidates)
        return self._explored(plain, candidates, np.delete(np.arange(len(candidates.items)), order), request_id)

    def _order(self, candidates: Candidates, count: int, pins: _Pins) -> Rows:
        """At most `count` candidates that the list takes, in its order."""
        items = candidates.items
        counted, room = self._caps.counted(items), self._caps.room(pins.items)
        open_, marginal, taken = ~np.isin(items, pins.items), self._marginal(candidates, pins), list[int]()
        while len(taken) < count:
            allowed = open_ & ~counted.full(room)
            if not allowed.any():
                break
            best = _best(allowed, marginal)
            taken.append(best)
            open_[best] = False
            room[counted[best]] -= 1
            if marginal is not None and best < len(marginal):
                marginal.take(best)
        return np.array(taken, np.int64)

    def _marginal(self, candidates: Candidates, pins: _Pins) -> Marginal | None:
        if self._config.diversity is None:
            return None
        assert candidates.vectors is not None
        assert pins.vectors is not None  # `of` sees to it
        best, weight = slice(self._config.diversity.of), self._config.diversity.weight
        scores = np.asarray(candidates.scores[best], np.float64)
        return Marginal(scores, candidates.vectors[best], pins.vectors, weight)

    def _explored(self, plain: Reranked, candidates: Candidates, rest: Rows, request_id: str) -> Reranked:
        """With other candidates of the `rest` in some places."""
        config = self._config.exploration
        if config is None:
            return plain
        rest = rest[~np.isin(candidates.items[rest], plain.items)]
        fits = self._caps.together(candidates.items[rest], self._caps.room(plain.items))
        pool = rest[fits][: config.of]
        places = np.flatnonzero(~plain.pinned)
        places = places[places >= config.after]
        found = draw(config, request_id, len(places), len(pool))
        changed = found.drawn >= 0
        at, by = places[changed], pool[found.drawn[changed]]
        items, scores, propensities = plain.items.copy(), plain.scores.copy(), plain.propensities.copy()
        items[at], scores[at], propensities[places] = candidates.items[by], candidates.scores[by], found.propensity
        return Reranked(items, scores, propensities, plain.pinned, np.isin(np.arange(len(items)), at))


@dataclass(frozen=True)
class _Pins:
    """Pinned items, by place."""

    items: Rows
    places: Rows
    """From 0, rising."""
    vectors: Vectors | None
    """[P, d]"""

    def shown(self, k: int, excluded: NDArray[np.integer], allowed: Allowed | None) -> _Pins:
        """Those that come into a list of k."""
        stay = (self.places < k) & ~np.isin(self.items, excluded)
        if allowed is not None:
            stay &= allowed.mask[self.items]
        return _Pins(self.items[stay], self.places[stay], None if self.vectors is None else self.vectors[stay])


def _found(rows: Texts, ids: Sequence[Id]) -> Rows:
    """Item index of each id, -1 for those that there are not."""
    return rows.find_all([text_of(each, "rules") for each in ids])


def _without(candidates: Candidates, items: NDArray[np.integer]) -> Candidates:
    stay = ~np.isin(candidates.items, items)
    if stay.all():
        return candidates
    vectors = None if candidates.vectors is None else candidates.vectors[stay]
    return Candidates(candidates.items[stay], candidates.scores[stay], vectors)


def _best(allowed: NDArray[np.bool_], marginal: Marginal | None) -> int:
    """The candidate of greatest marginal relevance, or else the first; of equal ones the first."""
    if marginal is None or not allowed[: len(marginal)].any():
        return int(np.argmax(allowed))
    return int(np.argmax(np.where(allowed[: len(marginal)], marginal.values(), -np.inf)))


def _interleaved(order: Rows, pins: _Pins, candidates: Candidates) -> Reranked:
    """Pins at their places, the others around them in order; a list has no gaps."""
    length = len(order) + len(pins.items)
    places = np.minimum(pins.places, length - len(pins.items) + np.arange(len(pins.items)))
    pinned = np.zeros(length, np.bool_)
    pinned[places] = True
    items, scores = np.empty(length, np.int64), np.empty(length)
    items[pinned], items[~pinned] = pins.items, candidates.items[order]
    same = pins.items[:, None] == candidates.items
    scores[pinned] = np.where(same.any(1), same @ candidates.scores, np.nan)
    scores[~pinned] = candidates.scores[order]
    return Reranked(items, scores, np.ones(length), pinned, np.zeros(length, np.bool_))
