"""The sequences of S3-Rec (Zhou et al., CIKM 2020): every user and item has five events or more; order, no clock.

Tables: events user_id, item_id, position (0, 1, ... in each user's order: use it as the timestamp); items item_id,
attributes (ids as text), category (the last of them; null without any).

The files do not say what an attribute is. Of Amazon's products the brand stands first (if it is frequent), then the
categories from coarse to fine, so the last is what DIN's code calls the category, up to rare ones that S3-Rec dropped
(a tenth of a percent of the items, or two, have a brand there). Yelp's categories are in no order: its last is an
arbitrary one.
"""

from __future__ import annotations

from recsys.data.public.definition import Download, Layout, PublicDataset

_REPOSITORY = "RUCAIBox/CIKM2020-S3Rec"
_COMMIT = "2a81540ae18615d88ef88227b0c066e5b74781e5"


def _dataset(name: str, file: str, description: str, licence: str) -> PublicDataset:
    sequences, attributes = f"{file}.txt", f"{file}_item2attributes.json"
    layout = Layout(
        folders=("s3rec-sequences", "CIKM2020-S3Rec/data"),
        files=(sequences, attributes),
        # A line is a user and her items, oldest first.
        events=rf"""
            WITH line AS (
                SELECT unnest(regexp_split_to_array(content, '\r?\n')) AS line FROM read_text(file('{sequences}'))
            ), history AS (
                SELECT string_split(line, ' ') AS words FROM line WHERE line != ''
            )
            SELECT words[1]::INTEGER AS user_id, unnest(words[2:])::INTEGER AS item_id,
                   unnest(range(len(words) - 1))::INTEGER AS position
            FROM history""",
        items=f"""
            WITH entry AS (
                SELECT unnest(map_entries(content::JSON::MAP(VARCHAR, VARCHAR[]))) AS entry
                FROM read_text(file('{attributes}'))
            )
            SELECT entry.key::INTEGER AS item_id, entry.value AS attributes, entry.value[-1] AS category
            FROM entry ORDER BY item_id""",
    )
    raw = f"https://raw.githubusercontent.com/{_REPOSITORY}/{_COMMIT}/data"
    return PublicDataset(
        name=name,
        description=f"{description}; order only, no clock (`position`): split by leave_last_out",
        licence=licence,
        page=f"https://github.com/{_REPOSITORY}",
        layouts=(layout,),
        downloads=(Download(f"{raw}/{sequences}"), Download(f"{raw}/{attributes}")),
    )


_AMAZON = "the repository states none; Amazon reviews (McAuley): research use"

S3REC = (
    _dataset("amazon-beauty", "Beauty", "198,502 reviews of 12,101 products by 22,363 users, to 2014", _AMAZON),
    _dataset(
        "amazon-sports", "Sports_and_Outdoors", "296,337 reviews of 18,357 products by 35,598 users, to 2014", _AMAZON
    ),
    _dataset("amazon-toys", "Toys_and_Games", "167,597 reviews of 11,924 products by 19,412 users, to 2014", _AMAZON),
    _dataset(
        "yelp",
        "Yelp",
        "316,354 reviews of 20,033 businesses by 30,431 users, 2019, some repeated",
        "the repository states none; Yelp's terms: no redistribution",
    ),
)
