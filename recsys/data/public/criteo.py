"""The display advertising challenge of Criteo (Kaggle, 2014): a week of ads, clicked or not, of nobody in particular.

Table: events label (0, 1), I1 ... I13 (whole numbers, mostly counts), C1 ... C26 (hashed categories); null where empty.
The lines are in order of time, but hold no time, user or item.
"""

from __future__ import annotations

from recsys.data.public.definition import Layout, PublicDataset

NUMBERS = tuple(f"I{n}" for n in range(1, 14))
CATEGORIES = tuple(f"C{n}" for n in range(1, 27))


def _layout(folders: tuple[str, ...], file: str) -> Layout:
    types = {"label": "TINYINT"} | dict.fromkeys(NUMBERS, "INTEGER") | dict.fromkeys(CATEGORIES, "VARCHAR")
    columns = ", ".join(f"'{name}': '{kind}'" for name, kind in types.items())
    return Layout(
        folders=folders,
        files=(file,),
        events=rf"""
        SELECT * FROM read_csv(file('{file}'), delim = '\t', header = false, quote = '', escape = '', nullstr = '',
                               auto_detect = false, columns = {{{columns}}})""",
    )


_FOLDERS = ("criteo", "criteo-kaggle", "dac")

CRITEO = PublicDataset(
    name="criteo",
    description="45,840,617 ads, 25.6% of them clicked, each with 13 numbers and 26 categories; no user, item or time. "
    "A copy with train_examples.txt holds the first 10,000",
    licence="Criteo's terms of the challenge: research, no commercial use, no redistribution",
    page="https://www.kaggle.com/c/criteo-display-ad-challenge",
    layouts=(
        _layout(_FOLDERS, "train.txt"),
        _layout(_FOLDERS, "train.txt.gz"),
        _layout((*_FOLDERS, "criteo-10k"), "train_examples.txt"),
    ),
)
