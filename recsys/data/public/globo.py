"""Clicks on the news portal Globo.com (de Souza Pereira Moreira et al., CHAMELEON).

Tables: events user_id, article_id, timestamp (milliseconds), session_id, session_start, session_size, environment,
device_group, os, country, region, referrer_type; items article_id, category_id (null where unknown), category_bucket.
"""

from __future__ import annotations

from recsys.data.public.definition import Layout, PublicDataset


def _clicks(source: str) -> str:
    return f"""
        SELECT user_id, click_article_id AS article_id, click_timestamp AS timestamp,
               session_id, session_start, session_size, click_environment AS environment,
               click_deviceGroup AS device_group, click_os AS os, click_country AS country,
               click_region AS region, click_referrer_type AS referrer_type
        FROM {source}"""


_PUBLISHED = Layout(
    folders=("globo", "news-portal-user-interactions-by-globocom"),
    files=("clicks/clicks_hour_*.csv", "articles_metadata.csv"),
    events=_clicks("read_csv(file('clicks/clicks_hour_*.csv'), header = true)"),
    items="""
        SELECT article_id, category_id, category_id AS category_bucket
        FROM read_csv(file('articles_metadata.csv'), header = true) ORDER BY article_id""",
)
_ONE_FILE = Layout(
    folders=("globo",),
    files=("clicks.parquet",),
    events=_clicks("read_parquet(file('clicks.parquet'))"),
    items="""
        SELECT click_article_id AS article_id, any_value(category_id) AS category_id,
               any_value(category_bucket) AS category_bucket
        FROM read_parquet(file('clicks.parquet')) GROUP BY ALL ORDER BY article_id""",
)

GLOBO = PublicDataset(
    name="globo",
    description="2,988,181 clicks on 46,033 news articles by 322,897 users in 16 days of October 2017. category_bucket "
    "is the true category only with the publisher's articles_metadata.csv; in a copy with clicks.parquet it is a "
    "coarse proxy derived from article ids: do not report it as the data set's category",
    licence="none stated; published for research: no redistribution",
    page="https://www.kaggle.com/datasets/gspmoreira/news-portal-user-interactions-by-globocom",
    layouts=(_PUBLISHED, _ONE_FILE),
)
