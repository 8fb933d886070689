"""What stands in a report, in which order; what is missing; and that nothing foreign gets into it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.cli.app import main
from recsys.errors import ConfigError, DataError
from recsys.evaluation.backtest_record import BacktestRecord, WindowRecord
from recsys.evaluation.record import Range
from recsys.report import write_report
from recsys.search.frontier import Promise, SearchRecord, Trained, Trial
from recsys.tuning.record import TrialRecord, TuningRecord
from tests.documented import must_parse
from tests.report.conftest import DATA, DIGEST, EVIL, RANKER, MakeRun, difference, health, ranked, record, showcase
from tests.report.pages import page_of, section, sections, text_of


def test_warnings_stand_before_the_first_number_and_the_worst_first(whole_run: Path) -> None:
    _, tree = page_of(whole_run)
    assert sections(tree)[:2] == ["warnings", "short"]
    warned = [text_of(each) for each in tree.findall(".//section[@id='warnings']//li")]
    assert warned[0] == "Warning a leak: 3 test events stand in the training part"
    assert warned[1] == "Note In ndcg@10 (0.2500) the model is not proven to differ from champion (0.2450, p 0.6)"
    assert any("1 slice has too few users to say much: item_frequency tail (12)" in each for each in warned)
    assert not any("popularity" in each for each in warned), "it is beaten"


def test_a_result_stands_with_its_interval_its_rivals_and_their_verdict(whole_run: Path) -> None:
    _, tree = page_of(whole_run)
    short = section(tree, "short")
    assert "ndcg@10 is 0.2500 (95% interval 0.2000–0.3000) on the 400 users of the test part." in short
    assert "champion, has 0.2450: the difference +0.0050 may be noise" in short
    rows = [[text_of(cell) for cell in row] for row in tree.findall(".//section[@id='result']//tbody/tr")]
    assert ["model", "0.2500", "0.2000–0.3000"] in rows
    assert ["popularity", "0.1500", "0.1000–0.2000"] in rows
    assert ["champion", "0.2450", "–"] in rows
    assert ["ndcg@10", "popularity", "+0.1000", "+0.0500, +0.1500", "0.001", "better, real"] in rows
    assert ["ndcg@10", "champion", "+0.0050", "-0.0100, +0.0200", "0.6", "maybe noise"] in rows
    assert ["coverage@10", "0.1250", "–", "–", "0.0625"] in rows, "beside champion and popularity, the best first"
    assert "100 users had nothing new in the test part" in section(tree, "result")


def test_what_was_trained_on_what_is_said(whole_run: Path) -> None:
    _, tree = page_of(whole_run)
    (facts,) = tree.findall(".//section[@id='trained']//dl")
    said = dict(zip(map(text_of, facts.iter("dt")), map(text_of, facts.iter("dd")), strict=True))
    assert (said["config digest"], said["data digest"], said["seed"]) == (DIGEST[:12], DATA[:12], "17")
    assert "9,000 training examples" in said["counts"]
    assert said["versions"] == "Python 3.11.9, recsys 0.1.0"
    assert (said["cost"], said["peak memory"]) == ("prepare 2.5 s, train 1 min 1 s", "2.00 GiB")
    assert "kind: two_tower" in section(tree, "trained"), "the whole config"


def test_learning_curves_ring_the_epoch_that_was_kept(whole_run: Path) -> None:
    _, tree = page_of(whole_run)
    said = section(tree, "learning")
    assert "3 epochs. The weights are those after epoch 2, where validation ndcg@10 was highest: 0.3000." in said
    assert "still rising" not in said
    rings = tree.findall(".//section[@id='learning']//figure/svg/circle")
    assert len(rings) == 1
    (line,) = tree.findall(".//section[@id='learning']//figure[2]/svg/path[@class='line s0']")
    places = [tuple(map(float, pair.split())) for pair in line.get("d")[1:].split(" L")]
    assert (float(rings[0].get("cx")), float(rings[0].get("cy"))) == places[1]
    assert places[1][1] < places[2][1] < places[0][1], "higher is better, and up is less"


def test_small_slices_are_marked(whole_run: Path) -> None:
    _, tree = page_of(whole_run)
    rows = [[text_of(cell) for cell in row] for row in tree.findall(".//section[@id='slices']//tbody/tr")]
    assert rows[0][1:4] == ["head", "300", "0.4000"]
    assert rows[1][1:4] == ["tail (small)", "12", "0.0125"]


def test_titles_are_text_whatever_they_hold(whole_run: Path) -> None:
    page, tree = page_of(whole_run)
    assert "<script" not in page
    assert list(tree.iter("script")) == []
    items = [text_of(each) for each in tree.findall(".//section[@id='examples']//ol/li")]
    assert items == [f"{EVIL} ✓ wanted", "Plain"]
    assert "User u<7>" in section(tree, "examples")
    assert f"1 of 2 found. Went on to: {EVIL}; Never shown." in section(tree, "examples")


def test_the_tables_health_is_told(whole_run: Path) -> None:
    _, tree = page_of(whole_run)
    (row,) = tree.findall(".//section[@id='tables']//tbody/tr")
    assert [text_of(cell) for cell in row] == ["item", "full", "200", "16", "12.8 kB", "25.6 kB", "12.5%", "12.3", "1"]


def test_no_request_leaves_the_page(whole_run: Path) -> None:
    page, tree = page_of(whole_run)
    for element in tree.iter():
        for name, value in element.attrib.items():
            if name in ("src", "href", "srcset", "action", "data", "xlink:href"):
                assert value.startswith(("#", "data:,")), f"{element.tag} {name}={value}"
    style = "".join(each.text for each in tree.iter("style"))
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in page.partition("</style>")[0]


def test_everything_has_a_name_for_those_who_do_not_see_it(whole_run: Path) -> None:
    _, tree = page_of(whole_run)
    ids = [each.get("id") for each in tree.iter() if each.get("id")]
    assert len(ids) == len(set(ids))
    named = [name for each in tree.iter() for name in each.get("aria-labelledby", "").split()]
    named += [each.get("href")[1:] for each in tree.iter("a")]
    assert set(named) <= set(ids)
    pictures = [each for each in tree.iter("svg") if each.get("role") == "img"]
    assert len(pictures) == 2
    assert all(text_of(each.find("desc")) and each.get("aria-labelledby") for each in pictures)
    assert all(each.get("aria-hidden") for each in tree.iter("svg") if each.get("role") != "img")
    for table in tree.iter("table"):
        assert text_of(table.find("caption"))
        assert all(cell.get("scope") for cell in table.iter("th"))
    assert [each.tag for each in tree.iter() if each.tag in ("header", "nav", "main", "footer")] == [
        "header",
        "nav",
        "main",
        "footer",
    ]


def test_a_model_card_says_what_is_known_and_how_to_redo_it(whole_run: Path) -> None:
    _, tree = page_of(whole_run)
    said = section(tree, "card")
    assert "Simulated: no real person stands in these data." in said
    assert "Positive is an event whose rating is at least 3." in said
    assert "last event" in said
    (code,) = tree.findall(".//section[@id='card']//pre")
    comment, copy, run, compare = code.text.splitlines()
    assert comment == "# with Python 3.11.9, recsys==0.1.0"
    _, source, target = shlex.split(copy)
    Path(target).write_text(Path(source).read_text())
    must_parse(run)
    must_parse(compare)
    assert shlex.split(run)[2] == target
    assert "name=small-again" in run


def test_the_licence_of_public_data_is_told(make_run: MakeRun) -> None:
    run = make_run("ranked", RANKER, {"metrics.json": ranked().model_dump_json()})
    page, tree = page_of(run)
    assert "GroupLens" in section(tree, "card")
    assert "https://grouplens.org" in page
    assert not tree.findall(".//a[@href='https://grouplens.org/datasets/movielens/']"), "named, not fetched"


def test_a_ranker_is_told_by_its_probabilities(make_run: MakeRun) -> None:
    look = {"fields": ["movie_id", "user_id"], "part": "test", "examples": 50, "caption": "Weights say little."}
    look["mean"] = {"attention": [[[[0.75, 0.25], [0.5, 0.5]]]]}
    files = {"metrics.json": ranked().model_dump_json(), "explain/explanation.json": json.dumps(look)}
    _, tree = page_of(make_run("ranked", RANKER, files))
    (warning,) = tree.findall(".//section[@id='warnings']//li[@class='serious']")
    assert "off by 0.2000 in the mean (ECE); 0.6333 is predicted and 0.4333 observed over all" in text_of(warning)
    assert len(tree.findall(".//section[@id='calibration']//figure/svg/path")) == 4, "a line and three bins"
    assert sections(tree) == [
        "warnings",
        "short",
        "trained",
        "result",
        "learning",
        "calibration",
        "explanation",
        "card",
        "missing",
    ]
    tables = [
        [[text_of(c) for c in row] for row in t.iter("tr")]
        for t in tree.findall(".//section[@id='explanation']//table")
    ]
    assert tables[0][1:] == [["movie_id", "0.625"], ["user_id", "0.375"]]
    assert tables[1][1:] == [["movie_id", "0.75", "0.25"], ["user_id", "0.50", "0.50"]]
    assert "one seed" in section(tree, "card").lower()


@pytest.mark.parametrize("evaluated", [True, False])
def test_what_is_missing_is_said_with_the_command_that_gives_it(make_run: MakeRun, evaluated: bool) -> None:
    run = make_run(files={"metrics.json": record().model_dump_json()} if evaluated else {})
    _, tree = page_of(run)
    missing = tree.find(".//section[@id='missing']")
    what = [each.text for each in missing.iter("dt")]
    assert ("real examples" in what, "metrics, slices, examples" in what) == (evaluated, not evaluated)
    assert what[1:] == ["health of the embedding tables", "what is served", "memory against quality"]
    for command in missing.iter("code"):
        must_parse(command.text)
    assert ("not evaluated yet" in text_of(tree)) != evaluated
    assert ("result" in sections(tree)) == evaluated


def test_two_stages_and_a_backtest_have_reports_too(make_run: MakeRun) -> None:
    metrics = {
        "reachable@10": 1.0,
        "lost_in_retrieval@10": 0.25,
        "lost_in_ranking@10": 0.25,
        "recall@10": 0.5,
        "ndcg@10": 0.2,
    }
    both = record(
        name="a-with-b",
        metrics={"model": {**metrics, "candidate_recall@500": 0.75}, "retriever": {"ndcg@10": 0.1, "recall@10": 0.3}},
        counts={"users_evaluated": 400, "candidates": 500},
        history=(),
    )
    _, tree = page_of(make_run("a-with-b", None, {"metrics.json": both.model_dump_json()}))
    assert "500 candidates for each user, put in order by the ranker, hold 0.7500" in section(tree, "stages")
    assert "learning" not in sections(tree)

    windows = [
        WindowRecord(
            name=f"w-window-{n}", first=0, last=86_400, users=9, metrics={"model": {"ndcg@10": value}}, warnings=warned
        )
        for n, value, warned in ((1, 0.2, ("odd",)), (2, 0.4, ()))
    ]
    pooled = BacktestRecord(
        name="w-backtest",
        config_digest=DIGEST,
        data_digest=DATA,
        warm_start=False,
        monitor="ndcg@10",
        timestamp_unit="s",
        windows=tuple(windows),
        ranges={"model": {"ndcg@10": Range(value=0.3, low=0.25, high=0.35, users=18)}},
        differences=(difference("popularity", real=True, difference=-0.1),),
    )
    _, tree = page_of(make_run("w-backtest", None, {"backtest.json": pooled.model_dump_json()}))
    assert "0.3000 (95% interval 0.2500–0.3500) over 2 windows, from 0.2000 to 0.4000 by window" in section(
        tree, "short"
    )
    warned = section(tree, "warnings")
    assert "w-window-1: odd" in warned
    assert "popularity is better than the model" in warned
    assert "1970-01-02" in section(tree, "windows")
    assert "recsys backtest, with the config of w, --windows 2" in section(tree, "card")


def test_the_frontier_of_a_search_is_drawn(make_run: MakeRun) -> None:
    def trial(name: str, method: str, size: int, value: float) -> Trial:
        runs = tuple(
            Trained(seed=seed, valid={"ndcg@10": value}, test={"ndcg@10": value + 0.01 * seed}, seconds=1.0)
            for seed in (0, 1)
        )
        return Trial(name=name, method=method, bytes=size, trained=runs, plan=None if method == "full" else name)

    found = SearchRecord(
        name="small-search",
        config_digest=DIGEST,
        data_digest=DATA,
        monitor="ndcg@10",
        promise=Promise(budget=5_000),
        full_bytes=12_800,
        trials=(
            trial("all", "full", 12_800, 0.3),
            trial("half", "optembed", 6_400, 0.29),
            trial("less", "uniform", 3_200, 0.2),
        ),
        front=("less", "half", "all"),
        verdicts=(),
        training_seconds=1.0,
        cost={},
        chosen="less",
    )
    run = make_run(files={"metrics.json": record().model_dump_json()})
    make_run("small-search", None, {"search.json": found.model_dump_json()})
    _, tree = page_of(run)
    said = section(tree, "frontier")
    assert "The full tables take 12.8 kB and give 0.3050. less was chosen by validation: 3.2 kB, 0.2050." in said
    rows = [
        [text_of(cell) for cell in row][:3] for row in tree.findall(".//section[@id='frontier']//figure/..//tbody/tr")
    ]
    assert ["3.2 kB", "–", "0.2050"] in rows
    keys = [text_of(each) for each in tree.findall(".//section[@id='frontier']//ul[@class='key']/li")]
    assert keys == ["optembed", "uniform", "chosen"]
    assert "memory against quality" not in section(tree, "missing")


def test_collapsed_tables_and_stale_parts_are_warned_of(make_run: MakeRun) -> None:
    sick = health(effective_rank=3.1).model_copy(update={"config_digest": "e" * 64})
    files = {"metrics.json": record().model_dump_json(), "inspect/tables.json": sick.model_dump_json()}
    _, tree = page_of(make_run(files=files))
    warned = section(tree, "warnings")
    assert "Table item has collapsed: its effective rank is 3.1, and 16 would be possible" in warned
    assert "inspected under another config" in warned


def test_nothing_to_report_on_is_an_error_with_its_cure(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds no run"):
        write_report(tmp_path)
    run = make_run()
    (run / "checkpoints" / "checkpoint").unlink()
    with pytest.raises(ConfigError, match=r"nothing is trained there yet; .*recsys run"):
        write_report(run)
    assert not (run / "report.html").exists()


def test_a_damaged_record_is_named(make_run: MakeRun) -> None:
    run = make_run(files={"metrics.json": record().model_dump_json(), "evaluation/examples.json": '{"part": 3}'})
    with pytest.raises(DataError, match=r"examples\.json: part"):
        write_report(run)


def test_the_command_prints_the_path_and_needs_no_tensorflow(
    whole_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(whole_run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(whole_run / "report.html")}
    assert (whole_run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    path = f"__import__('pathlib').Path({str(whole_run)!r})"
    code = (
        f"import sys; from recsys.report import write_report; write_report({path}); print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_showcase_without_titles_names_ids(make_run: MakeRun) -> None:
    bare = showcase()
    user = bare.users[0].model_copy(
        update={"shown": tuple(s.model_copy(update={"title": None}) for s in bare.users[0].shown)}
    )
    files = {
        "metrics.json": record().model_dump_json(),
        "evaluation/examples.json": bare.model_copy(update={"users": (user,)}).model_dump_json(),
    }
    _, tree = page_of(make_run(files=files))
    assert [text_of(each) for each in tree.findall(".//section[@id='examples']//ol/li")] == ["1 ✓ wanted", "2"]


def test_what_mattered_in_a_tuning_is_shown(make_run: MakeRun) -> None:
    trials = (
        TrialRecord(number=0, values={"a.b": 1.0}, state="complete", quality=0.25),
        TrialRecord(number=1, values={"a.b": 2.0}, state="failed", quality=None),
        TrialRecord(number=2, values={"a.b": 3.0}, state="complete", quality=0.5),
    )
    found = TuningRecord(
        name="small-tune",
        config_digest=DIGEST,
        data_digest=DATA,
        monitor="ndcg@10",
        trials=trials,
        best=2,
        importance={"a.b": 0.75, "c": 0.25},
        changed={"a.b": 3.0},
    )
    run = make_run(files={"metrics.json": record().model_dump_json()})
    make_run("small-tune", None, {"tuning.json": found.model_dump_json()})
    _, tree = page_of(run)
    said = section(tree, "tuning")
    assert (
        "3 trials by validation ndcg@10. The best, number 2, has 0.5000; the experiment as it stands has 0.2500."
        in said
    )
    assert len(tree.findall(".//section[@id='tuning']//figure/svg/path")) == 2, "points of those that have a quality"
    rows = [[text_of(cell) for cell in row] for row in tree.findall(".//section[@id='tuning']//tbody/tr")]
    assert rows[-2:] == [["a.b", "0.750"], ["c", "0.250"]]
