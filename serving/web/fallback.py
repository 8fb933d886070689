"""What a web worker answers while nobody behind it does: popular items, which it keeps in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from recsys.bundle.requests import text_of
from serving.about import Popular
from serving.engine.engine import Engine, EngineGoneError
from serving.messages import Recommendations, Recommended, Request

FRESH = 2.0
"""Seconds after which the popular items are asked for again: the bundle or the catalogue may have changed."""


class Fallback:
    """Popular items of the bundle that answered last."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._popular: Popular | None = None

    @contextlib.asynccontextmanager
    async def kept_fresh(self) -> AsyncIterator[None]:
        """While the web worker runs."""
        task = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def recommend(self, request: Request) -> Recommendations | None:
        """Popular items, without those that the request excludes; None where its conditions cannot be kept, or nobody
        has answered yet. Scores fall from 1, by the place.

        Raises:
            RequestError: an id is no text.
        """
        if self._popular is None or request.where is not None or request.only is not None:
            return None
        excluded = {text_of(item, f"exclude[{n}]") for n, item in enumerate(request.exclude)}
        items = [item for item in self._popular.items if item.item not in excluded][: request.k]
        return Recommendations(
            items=tuple(
                Recommended(item=item.item, title=item.title, score=1 / place)
                for place, item in enumerate(items, start=1)
            ),
            user=None if request.user is None else text_of(request.user, "user"),
            bundle=self._popular.bundle,
            degraded=("model",),
        )

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(EngineGoneError):
                answer = await self._engine.call("popular", b"{}")
                if answer.status == 200:
                    self._popular = Popular.model_validate_json(answer.body)
            await asyncio.sleep(FRESH if self._popular else 0.1)
