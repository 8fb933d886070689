"""The last stage: from indices and scores to what a client reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from serving.log.response_log import Response
from serving.messages import Recommendations, Recommended, Why
from serving.pipeline.candidates import Candidates
from serving.pipeline.profiles import Profile
from serving.pipeline.ranking import Looks
from serving.pipeline.shelf import Rows, Shelf
from serving.reranking import Reranked


def respond(shelf: Shelf, shown: Reranked, whys: Sequence[Why | None] | None = None) -> tuple[Recommended, ...]:
    """Items with titles and scores; with their propensities where the rules explore, and with reasons if there are."""
    explores = shelf.rules is not None and shelf.rules.explores
    items, scores = shelf.described(shown.items), _numbers(shown.scores)
    propensities = _numbers(shown.propensities) if explores else [None] * len(items)
    return tuple(
        Recommended(item=item.item, title=item.title, score=score, propensity=propensity, why=why)
        for item, score, propensity, why in zip(items, scores, propensities, whys or [None] * len(items), strict=True)
    )


def explained(
    shown: Reranked, found: Candidates | None, ranked: Candidates | None, looks: Sequence[Looks] | None
) -> list[Why]:
    """How each shown item came to its place, from what was found and how it was ranked, as far as these were made."""
    retrieved, retrieval_scores = _standing(found, shown.items)
    places, ranker_scores = _standing(ranked, shown.items)
    return [
        Why(
            retrieved=retrieved[n],
            retrieval_score=retrieval_scores[n],
            ranked=places[n],
            ranker_score=ranker_scores[n],
            history=None if looks is None else looks[n].history,
            fields=None if looks is None else looks[n].fields,
            rules=("pinned",) if shown.pinned[n] else ("explored",) if shown.explored[n] else (),
        )
        for n in range(len(shown.items))
    ]


def logged(
    answer: Recommendations,
    profile: Profile,
    found: Candidates,
    ranker_scores: NDArray[np.float32] | None,
    shown: Reranked,
) -> Response:
    """An answer as the log keeps it, with all candidates."""
    return Response(
        request_id=str(answer.request_id),
        time=datetime.now(UTC),
        user=answer.user,
        features=profile.features,
        bundle=answer.bundle.name,
        version=answer.bundle.version,
        candidates=found.shelf.items["item"].take(found.rows).to_pylist(),
        retrieval_scores=found.scores,
        ranker_scores=ranker_scores,
        shown=[item.item for item in answer.items],
        scores=shown.scores,
        propensities=shown.propensities,
        degraded=answer.degraded,
        milliseconds=answer.milliseconds,
    )


def _standing(candidates: Candidates | None, items: Rows) -> tuple[list[int | None], list[float | None]]:
    """Place (from 1) and score of each item among candidates; None where it is none of them."""
    if candidates is None or not len(candidates.rows):
        return [None] * len(items), [None] * len(items)
    same = items[:, np.newaxis] == candidates.rows
    place, there = same.argmax(1), same.any(1)
    places = [int(at) + 1 if is_there else None for at, is_there in zip(place, there, strict=True)]
    return places, _numbers(np.where(there, candidates.scores[place], np.nan))


def _numbers(values: NDArray[np.floating]) -> list[float | None]:
    """None for NaN."""
    return [None if value != value else value for value in values.tolist()]
