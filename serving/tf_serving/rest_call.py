"""A call of TensorFlow Serving's REST API, as a web worker passes it on."""

from __future__ import annotations

import re
from typing import Literal, Self

from recsys.config.base import Config

PREFIX = "/v1/models/"
METHOD = "tf_serving"
"""The model process' name for all of them."""
Verb = Literal["predict", "classify", "regress", "status", "metadata"]
_CALLED = re.compile(r"(?P<model>[^/:]+)(?:/versions/(?P<version>\d{1,18}))?:(?P<verb>predict|classify|regress)")
_ASKED = re.compile(r"(?P<model>[^/:]+)(?:/versions/(?P<version>\d{1,18}))?(?:/(?P<verb>metadata))?")


class RestCall(Config):
    """Which model is asked, and for what."""

    model: str
    version: int | None
    """None for the one that is served."""
    verb: Verb

    @classmethod
    def of(cls, http_method: str, path: str) -> Self | None:
        """From a path below `PREFIX`; None where TensorFlow Serving has no such path."""
        found = (_CALLED if http_method == "POST" else _ASKED).fullmatch(path)
        if found is None:
            return None
        version = found["version"]
        return cls.model_validate(
            {
                "model": found["model"],
                "version": None if version is None else int(version),
                "verb": found["verb"] or "status",
            }
        )

    def packed(self, body: bytes) -> bytes:
        """With the body, as one message between processes: a line of JSON before it."""
        return self.model_dump_json().encode() + b"\n" + body

    @classmethod
    def unpacked(cls, message: bytes) -> tuple[Self, bytes]:
        """The inverse."""
        head, _, body = message.partition(b"\n")
        return cls.model_validate_json(head), body
