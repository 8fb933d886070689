"""Frappe: which apps people use in which context (Baltrunas et al., 2015).

Tables: events user_id, item_id, cnt (times used), daytime, weekday, isweekend, homework, cost, weather, country, city;
items item_id, name, package, category, downloads, developer, language, price, rating (null where unknown).
"""

from __future__ import annotations

from recsys.data.public.definition import Layout, PublicDataset

_APP_COLUMNS = ("name", "package", "category", "downloads", "developer", "language", "price")

_LAYOUT = Layout(
    folders=("frappe", "Mobile_Frappe/frappe", "Mobile_Frappe"),
    files=("frappe.csv", "meta.csv"),
    events=r"""
        SELECT "user"::INTEGER AS user_id, item::INTEGER AS item_id, cnt::INTEGER AS cnt,
               daytime, weekday, isweekend, homework, cost, weather, country, city
        FROM read_csv(file('frappe.csv'), delim = '\t', header = true, all_varchar = true)""",
    items=rf"""
        SELECT item::INTEGER AS item_id, {", ".join(f"nullif({name}, 'unknown') AS {name}" for name in _APP_COLUMNS)},
               TRY_CAST(rating AS DOUBLE) AS rating
        FROM read_csv(file('meta.csv'), delim = '\t', header = true, all_varchar = true) ORDER BY item_id""",
)

FRAPPE = PublicDataset(
    name="frappe",
    description="96,203 uses of 4,082 apps by 957 users, with context (daytime, weather, place, ...); no time",
    licence="research use with citation; no redistribution, no commercial use without permission",
    page="https://www.baltrunas.info/context-aware/frappe",
    layouts=(_LAYOUT,),
)
