"""The click-through rate challenge of Avazu (Kaggle, 2014): ten days of mobile ads, clicked or not.

Table: events id (of the line), click (0, 1), hour (YYMMDDHH, as published), C1, banner_pos, site_*, app_*, device_*,
C14 ... C21 (all text), and from the hour: timestamp (seconds, UTC), hour_of_day, weekday (0 is Sunday) and is_weekend,
as FuxiCTR has them. device_id names no user: one value of it stands in most lines.
"""

from __future__ import annotations

from recsys.data.public.definition import Layout, PublicDataset

_OWN = ("id", "click", "hour")
FIELDS = (
    "C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category", "device_id",
    "device_ip", "device_model", "device_type", "device_conn_type", *(f"C{n}" for n in range(14, 22)),
)  # fmt: skip


def _events(*sources: str) -> str:
    columns = ", ".join(_OWN + FIELDS)
    return f"""
        WITH line AS ({" UNION ALL ".join(f"SELECT {columns} FROM {source}" for source in sources)}),
        timed AS (SELECT *, strptime('20' || hour, '%Y%m%d%H') AS moment FROM line)
        SELECT id, click::TINYINT AS click, hour, {", ".join(FIELDS)}, epoch(moment)::BIGINT AS timestamp,
               hour(moment) AS hour_of_day, dayofweek(moment) AS weekday, dayofweek(moment) IN (0, 6) AS is_weekend
        FROM timed"""


def _csv(file: str, header: bool = True) -> str:
    columns = ", ".join(f"'{name}': 'VARCHAR'" for name in _OWN + FIELDS)
    start = "true" if header else "false"
    return f"read_csv(file('{file}'), header = {start}, delim = ',', auto_detect = false, columns = {{{columns}}})"


_FOLDERS = ("avazu", "avazu-ctr-prediction")
_SAMPLE = ("train_first9000.csv", "test_next.csv")

AVAZU = PublicDataset(
    name="avazu",
    description="40,428,967 mobile ads of October 2014, 17% of them clicked, each with 21 categories and the hour; no "
    "user or item. A copy with train_first9000.csv and test_next.csv holds the first 9,999, all of one hour",
    licence="Kaggle's rules of the challenge: no redistribution",
    page="https://www.kaggle.com/c/avazu-ctr-prediction",
    layouts=(
        Layout(_FOLDERS, ("train.csv",), _events(_csv("train.csv"))),
        Layout(_FOLDERS, ("train.gz",), _events(_csv("train.gz"))),
        Layout((*_FOLDERS, "avazu-9k"), _SAMPLE, _events(_csv(_SAMPLE[0]), _csv(_SAMPLE[1], header=False))),
    ),
)
