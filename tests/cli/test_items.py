"""A fresh item goes from a file to being retrieved in one command, without training."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys.bundle import Bundle
from recsys.cli import main
from tests.trained import Trained, recsys


def test_a_new_item_is_retrieved_by_whose_query_is_near(
    trained_copy: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has the category and the tags of a known item, and so nearly its vector: who likes one is shown the other."""
    bundle = Bundle.load(trained_copy.bundle)
    queries = np.stack(pq.read_table(trained_copy.bundle / "queries.parquet")["vector"].to_numpy(zero_copy_only=False))
    users = pq.read_table(trained_copy.bundle / "queries.parquet")["user"].to_pylist()
    features = bundle.items.select(["raw.category", "raw.tags"]).to_pylist()
    fresh = [
        {"item_id": "fresh", "title": "Fresh", "category": row["raw.category"], "tags": row["raw.tags"]}
        for row in features
    ]
    vectors = bundle.embed_items([{k: v for k, v in row.items() if k not in ("item_id", "title")} for row in fresh])
    # The pair for which the new item stands highest among all items.
    ranks = (queries @ bundle.index.vectors.T)[:, None, :] > (queries @ vectors.T)[:, :, None]
    user, like = np.unravel_index(ranks.sum(axis=2).argmin(), (len(queries), len(vectors)))
    (trained_copy.folder / "fresh.jsonl").write_text(json.dumps(fresh[like]) + "\n")

    done = recsys(trained_copy.folder, "items", "upsert", "runs/small", "--items", "fresh.jsonl", "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["path"] == "runs/small/bundle/2"
    assert (told["upserted"], told["deleted"]) == (1, 0)
    manifest = Bundle.load(trained_copy.run).manifest
    assert (manifest.version, manifest.catalogue) == (2, told["catalogue"])
    assert manifest.catalogue_size == bundle.manifest.catalogue_size + 1

    def recommended(*more: str) -> list[str]:
        capsys.readouterr()
        assert main(["recommend", "runs/small", "--user", users[user], "-k", "100", "--json", *more]) == 0
        return [item["item"] for item in json.loads(capsys.readouterr().out)["items"]]

    assert "fresh" in recommended()
    category = fresh[like]["category"]
    within = recommended("--where", f"category={category}")
    assert "fresh" in within
    of = {row["item"]: row["raw.category"] for row in Bundle.load(trained_copy.run).items.to_pylist()}
    assert {of[item] for item in within} == {category}
    assert "fresh" not in recommended("--where", f"category={category}", "--exclude", "fresh")
    assert recommended("--only", "fresh") == ["fresh"]

    capsys.readouterr()
    assert main(["items", "delete", "runs/small", "--item", "fresh"]) == 0
    assert "1 deleted" in capsys.readouterr().out
    assert recommended("--only", "fresh") == []
