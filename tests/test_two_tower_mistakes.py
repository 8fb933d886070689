"""Ways to get the losses of two towers wrong, tried on the command line: one line with place and cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_mistakes import answer, shop

__all__ = ["shop"]

MISTAKES = {
    "model.loss={log_q: true}": ("model.loss.log_q: ", "expected"),
    "model.loss={log_q: {kind: exact}}": ("model.loss.log_q.kind: ", "'counts' or 'streaming'"),
    "model.loss={kind: softmax}": (
        "model.loss.kind: ",
        "expected 'bpr', 'full_softmax', 'in_batch_softmax' or 'sampled_softmax'",
    ),
    "model.loss={kind: bpr, log_q: {kind: counts}}": ("model.loss.log_q: ", "unknown key"),
    "model.loss={log_q: null, correct_positive: false}": ("model.loss: ", "nothing is corrected"),
    "model.loss={hardest: 8}": ("model.loss.hardest: ", "8 of a batch's 8 candidates are all; lower it"),
    "model.loss={kind: sampled_softmax, power: 2}": ("model.loss.power: ", "less than or equal to 1"),
    "model.loss={popularity_temperature: 2}": ("model.loss.popularity_temperature: ", "less than or equal to 1"),
    "model.loss={mined: {ranks: [9, 3]}}": ("model.loss.mined: ", "from 9 to 3; name the smaller one first"),
    "model.loss={mined: {ranks: [3, 9]}}": ("model.loss.mined: ", "kept is 32, but ranks 3 to 9 are 7 items"),
    "model.loss={mined: {count: 40}}": ("model.loss.mined: ", "only 32 are kept for a user; raise kept"),
    "model.loss={mined: {from_epoch: 1}}": ("model.loss.mined.from_epoch: ", "greater than or equal to 2"),
    "model.loss={mined: {}}": ("model.loss.mined.from_epoch: ", "2, but there are 1 epochs: nothing is mined"),
    "model.ssl={}": (
        "model.ssl.augmentation: ",
        "divide 3 or more item features beside the id, and there are 2 (colour",
    ),
    "model.ssl={ids: normalized, value_dropout: 0.1}": (
        "model.ssl.value_dropout: ",
        "no item feature has several values",
    ),
    "model.ssl={augmentation: none, value_dropout: 0.1}": (
        "model.ssl.value_dropout: ",
        "one and the same; set it to 0",
    ),
    "model.ssl={augmentation: random, items: training, batch_size: 9}": ("model.ssl.batch_size: ", "remove it"),
    "model.ssl={augmentation: spread}": ("model.ssl.augmentation: ", "'correlated', 'random' or 'none'"),
    "model={kind: two_tower, ssl: {augmentation: none}, query: {hidden: [8]}, item: {hidden: [8], activation: dice}}": (
        "model.item.activation: ",
        "dice follows the batch",
    ),
    "retrieval.min_rank=9": ("retrieval.min_rank: ", "9 of vectors of 8 numbers; lower it"),
    "retrieval.min_rank=0.5": ("retrieval.min_rank: ", "greater than or equal to 1"),
    "model.matryoshka=[4, 2]": ("model.matryoshka: ", "[4, 2] does not rise; sort the widths"),
    "model.matryoshka=[4, 4]": ("model.matryoshka: ", "name each once"),
    "model.matryoshka=[8]": ("model.matryoshka: ", "8 is no prefix of 8 units", "raise output_dim"),
}


@pytest.mark.parametrize("override", MISTAKES)
def test_a_mistake_is_one_line_with_its_cure(override: str, shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, lines = answer(f"config check c.yaml --set '{override}'", capfd)
    assert code == 1
    assert len(lines) == 1, lines
    place, *parts = MISTAKES[override]
    assert place in lines[0]
    assert all(part in lines[0] for part in parts), lines[0]


def test_what_training_cannot_give_a_loss(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """All in one go."""
    code, lines = answer(
        "config check c.yaml --set 'model.loss={mined: {}, log_q: {kind: streaming}}' "
        "--set 'training={batch_size: 8, epochs: 3, strategy: parameter_server, early_stopping: null}'",
        capfd,
    )
    assert code == 1
    streaming, asynchronous, unseen = lines
    assert "model.loss.log_q.kind: " in streaming
    assert "choose counts" in streaming
    assert "model.loss.mined: " in asynchronous
    assert "choose another training.strategy" in asynchronous
    assert "training.early_stopping: null, but model.loss.mined" in unseen
    assert "only validation shows; set it" in unseen


def test_ranks_that_a_catalogue_lacks(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, lines = answer("train c.yaml --set 'model.loss={mined: {}}' --set training.epochs=2", capfd)
    assert code == 1
    assert "model.loss.mined.ranks: begin at 100" in lines[0]
    assert "the catalogue has 12" in lines[0]
