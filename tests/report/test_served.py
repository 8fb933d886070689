"""What a report says of what is served."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from recsys.bundle.manifest import AlignmentFacts, FileFacts, IndexFacts, Manifest, Versions, required
from recsys.retrieval.curve import Between, Curve, Layout, Pairs, Setting
from recsys.retrieval.curve import Point as IndexPoint
from tests.report.conftest import MakeRun, record
from tests.report.pages import page_of, section, text_of
from tests.tiny_bundle import description


def with_bundle(make_run: MakeRun, **more: object) -> Path:
    """A run with bundle 3, of which there is no more than what a report reads."""
    run = make_run(files={"metrics.json": record().model_dump_json()})
    bundle = run / "bundle" / "3"
    (bundle / "index").mkdir(parents=True)
    manifest = Manifest(
        **dict(description(index=IndexFacts(kind="scann", k=10, recall=0.85, promise={"recall@10": 0.8}))) | more,
        version=3,
        created=datetime.now(UTC),
        versions=Versions.installed(),
        files={name: FileFacts(sha256="0" * 64, bytes=1_000) for name in required("two_tower", 3)},
    )
    (bundle / "manifest.json").write_text(manifest.model_dump_json())
    return run


def test_the_index_is_told_with_its_curve(make_run: MakeRun) -> None:
    run = with_bundle(make_run)
    layout = Layout(leaves=4, dimensions_per_block=2, anisotropic_threshold=0.2)
    points = tuple(
        IndexPoint(
            layout=layout,
            setting=Setting(leaves_to_search=n, reorder=10),
            recall={"recall@10": Between(estimate=recall, low=recall - 0.05, high=recall + 0.05)},
            milliseconds=Between(estimate=time, low=time, high=time),
        )
        for n, recall, time in ((1, 0.6, 0.5), (2, 0.85, 1.5))
    )
    Curve(queries=321, points=points, chosen=1, depths=()).save(run / "bundle" / "3" / "index")
    _, tree = page_of(run)
    said = section(tree, "served")
    assert "0.8500 of exact search" in said
    assert "5 kB" in said, "five files"
    assert "recall@10 of 0.8" in said
    assert "over 321 held-out queries" in said
    rows = [[text_of(cell) for cell in row] for row in tree.findall(".//section[@id='served']//tbody/tr")]
    assert rows == [["0.5", "0.6000"], ["1.5", "0.8500"]]
    warned = section(tree, "warnings")
    assert "The index finds 85.0% of what exact search finds (recall@10)" in warned
    assert "Bundle 3 was exported from another config" in warned
    assert "near new items" not in said
    near = points[1].model_copy(update={"near": Pairs(found=1_800, all=2_000)})
    Curve(queries=321, points=(points[0], near), chosen=1, depths=()).save(run / "bundle" / "3" / "index")
    _, tree = page_of(run)
    assert "of 2,000 queries near new items 1,800 find them" in section(tree, "served")


def test_a_mixed_fleet_is_told_beside_what_each_model_finds_by_itself(make_run: MakeRun) -> None:
    facts = AlignmentFacts(
        bundle="model 2",
        shared_items=1_234,
        cosine_before=0.01,
        cosine=0.75,
        users=56,
        k=10,
        new_query_new_index=0.4,
        old_query_old_index=0.3,
        new_query_old_index=0.28,
        old_query_new_index=0.27,
        new_query_old_index_before=0.02,
        old_query_new_index_before=0.03,
    )
    _, tree = page_of(with_bundle(make_run, alignment=facts))
    rows = [[text_of(cell) for cell in row] for row in tree.findall(".//section[@id='served']//tbody/tr")]
    assert rows == [
        ["both new", "0.4000", "0.4000"],
        ["new queries, old index", "0.2800", "0.0200"],
        ["old queries, new index", "0.2700", "0.0300"],
        ["both old", "0.3000", "0.3000"],
        ["cosine of an item's two vectors", "0.7500", "0.0100"],
    ]
    said = section(tree, "served")
    assert "While the fleet is mixed with model 2" in said
    assert "Among the 1,234 items that both have; recall@10 of held-out positives of 56 users." in said


def test_models_without_common_users_are_compared_by_their_items_alone(make_run: MakeRun) -> None:
    facts = AlignmentFacts(bundle="model 2", shared_items=7, cosine_before=0.01, cosine=0.75)
    _, tree = page_of(with_bundle(make_run, alignment=facts))
    assert len(tree.findall(".//section[@id='served']//tbody/tr")) == 1
    assert "Among the 7 items that both have." in section(tree, "served")
