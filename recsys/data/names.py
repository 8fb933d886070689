"""What column names usually mean."""

from __future__ import annotations

import re


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


USER = _set("user uid visitor customer client member account reviewer person player subscriber shopper buyer")
ITEM = _set(
    "item iid movie film track song artist album product pid asin sku isbn gtin article goods ad video book "
    "poi business content document doc news app game anime recipe course job listing restaurant hotel"
)
_ID = _set("id ids key code uuid guid hash no num number idx index")
_IDS_BY_THEMSELVES = _set("uid iid pid asin sku isbn gtin")
RATING = _set("rating ratings score stars star overall rate grade")
LABEL = _set(
    "label click clicked target like liked purchase purchased buy bought converted conversion watched feedback"
)
AFTERWARDS = _set(
    "cnt count duration dwell plays playcount quantity qty revenue amount weight views watchtime position rank"
)
"""What is known only after the event, or tells how it was shown."""
CODE = _ID | _set(
    "zip zipcode postcode type category region country city hour weekday day month group genre brand os device"
)
"""Numbers by these names are codes, not quantities."""
TITLE = ("title", "name", "headline")
_CLOCK = {"timestamp": 3.0, "ts": 3.0, "time": 2.5, "unixtime": 2.5, "datetime": 2.5, "date": 2.0, "at": 1.0}
_NOT_THE_EVENT = _set("start end birth release released session updated published first last")
ORDINAL = _set("position pos order seq sequence step rank")


def words(name: str) -> list[str]:
    """`click_articleId` -> click, article, id; RecBole's type (`user_id:token`) is left out."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+", name.partition(":")[0])
    return [word for part in parts for word in _split_id(part.lower())]


def identifies(name: str, entity: frozenset[str]) -> float:
    """How surely a column of this name holds ids of users or items: 0 not at all, 3 surely."""
    found = words(name)
    if not entity.intersection(found):
        return 0.0
    others = [word for word in found if word not in entity and word not in _ID]
    if not others:
        return 3.0
    is_id = bool(_ID.intersection(found) or _IDS_BY_THEMSELVES.intersection(found))
    return 2.0 / len(others) if is_id else 0.0


def clock(name: str) -> float:
    """How surely a column of this name tells when the event was: 0 not at all, 3 surely."""
    found = words(name)
    best = max((_CLOCK.get(word, 0.0) for word in found), default=0.0)
    return best - 0.1 * (len(found) - 1) - 2.0 * bool(_NOT_THE_EVENT.intersection(found)) if best else 0.0


def says(name: str, meaning: frozenset[str]) -> bool:
    """Whether the name is one of these words, alone or as `is_...`, `has_...`."""
    found = [word for word in words(name) if word not in ("is", "has")]
    return len(found) == 1 and found[0] in meaning


def _split_id(word: str) -> list[str]:
    stem = word.removesuffix("id")
    return [stem, "id"] if stem != word and stem in USER | ITEM else [word]
