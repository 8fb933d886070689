"""What a bundle can be asked, by name: the model process' side of the routes in `serving.web.application`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from recsys.bundle.users import UnknownUserError
from recsys.errors import RecsysError, RequestError
from serving.about import History, HistoryRequest, Info, KnownUsers, Popular, UsersRequest
from serving.catalogue.explorer import Explorer
from serving.catalogue.map import CatalogueMap
from serving.catalogue.messages import DescribeRequest
from serving.engine.engine import Answer, internal_error
from serving.messages import (
    MOST,
    BesideRequest,
    EmbedRequest,
    EventRequest,
    FeedbackRequest,
    ItemsRequest,
    RankRequest,
    Recommendations,
    Request,
    problems_of,
)
from serving.pipeline.pipeline import Pipeline
from serving.tf_serving import rest_call
from serving.web.metrics import Metrics

if TYPE_CHECKING:
    from serving.tf_serving.servables import Servables

DRAWING = Answer(202, b"{}")
CURVE = "index/curve.json"
M = TypeVar("M", bound=BaseModel)
Method = Callable[[bytes], Answer]
"""From the body of a request to its answer."""


class Methods:
    """Runs methods, and maps what they raise, once for all of them: `RequestError` and what does not fit a message to
    422, unknown users to 404, what this bundle cannot do to 409, anything else to an opaque 500 whose id stands in the
    log beside the trace.
    """

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def answer(self, method: str, body: bytes) -> Answer:
        """Never raises."""
        try:
            return self._methods[method](body)
        except ValidationError as error:
            return Answer.refused(422, problems_of(error.errors()))
        except UnknownUserError as error:
            return Answer.refused(404, error.problems)
        except RequestError as error:
            return Answer.refused(422, error.problems)
        except RecsysError as error:
            return Answer.refused(409, error.problems)
        except Exception:
            return internal_error(method)


def method(request: type[M], answer: Callable[[M], BaseModel]) -> Method:
    """From a function on messages. An answer leaves out what is at its default."""
    return lambda body: _json(answer(request.model_validate_json(body)), exclude_defaults=True)


def _json(answer: BaseModel, *, exclude_defaults: bool = False) -> Answer:
    return Answer(200, answer.model_dump_json(exclude_defaults=exclude_defaults).encode())


def methods_of(pipeline: Pipeline, servables: Servables, metrics: Metrics) -> Methods:
    """All that a bundle can be asked."""
    from serving.tf_serving import rest  # loads TensorFlow

    def recommend(request: Request) -> Recommendations:
        answer = pipeline.recommend(request)
        metrics.answered(answer)
        return answer

    explorer = Explorer(pipeline.bundle, pipeline.shelf)
    name, info = _json(pipeline.name), _json(_info(pipeline))
    known: dict[str, Method] = {
        "recommend": method(Request, recommend),
        "beside": method(BesideRequest, pipeline.beside),
        "rank": method(RankRequest, pipeline.rank),
        "embed": method(EmbedRequest, pipeline.embed),
        "update": method(ItemsRequest, pipeline.update),
        "feedback": method(FeedbackRequest, pipeline.feedback),
        "event": method(EventRequest, pipeline.event),
        "users": method(UsersRequest, lambda asked: KnownUsers(users=tuple(pipeline.users(asked.prefix, asked.count)))),
        "history": method(HistoryRequest, lambda asked: _history(pipeline, asked)),
        "describe": method(DescribeRequest, explorer.describe),
        "map": lambda _: _drawn(explorer, CatalogueMap.encode),
        "legend": lambda _: _drawn(explorer, lambda drawn: drawn.legend.model_dump_json().encode()),
        "name": lambda _: name,
        "info": lambda _: info,
        "popular": lambda _: _json(Popular(bundle=pipeline.name, items=tuple(pipeline.popular(MOST)))),
        rest_call.METHOD: lambda message: rest.answer(servables, message),
    }
    return Methods(known)


def _history(pipeline: Pipeline, asked: HistoryRequest) -> History:
    return History(user=str(asked.user), items=tuple(pipeline.history(asked.user, asked.count)))


def _drawn(explorer: Explorer, encode: Callable[[CatalogueMap], bytes]) -> Answer:
    """Of the map; 202 while it is being drawn."""
    drawn = explorer.map()
    return DRAWING if drawn is None else Answer(200, encode(drawn))


def _info(pipeline: Pipeline) -> Info:
    manifest, curve = pipeline.bundle.manifest, pipeline.bundle.folder / CURVE
    return Info(
        bundle=pipeline.name,
        kind=manifest.kind,
        catalogue_size=manifest.catalogue_size,
        embedding_dim=manifest.embedding_dim,
        metrics=manifest.metrics,
        index=None if manifest.index is None else manifest.index.model_dump(),
        curve=json.loads(curve.read_bytes()) if curve.exists() else None,
        request={name: field.model_dump() for name, field in manifest.request.items()},
        item={name: field.model_dump() for name, field in manifest.item.items()},
        versions=manifest.versions.model_dump(),
        ranker=manifest.ranking is not None,
        complements=manifest.complements is not None,
    )
