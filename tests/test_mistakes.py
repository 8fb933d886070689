"""Ways to break a YAML, a data file, a run directory, a bundle or a command line, each tried on the command line.

Every mistake exits with its code and one line per problem, which names the place and the cure; no trace, and nothing
half-written is left in the working folder, the runs, the cache or the folder for temporary files.
"""

from __future__ import annotations

import errno
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.cli import main

CONFIG = """\
name: shop
data:
  source: {kind: files, events: log.csv, items: items.csv}
  split: {kind: leave_last_out}
schema:
  user: user
  item: item
  timestamp: time
  features:
    item_id: {kind: categorical, role: item, column: item}
    colour: {kind: categorical, role: item}
    price: {kind: numeric, role: item}
    user_id: {kind: categorical, role: user, column: user}
    seen: {kind: sequence, of: item_id}
embeddings:
  tables:
    item: {dim: 8}
    user: {dim: 8}
    colour: {dim: 4}
  features:
    item_id: {table: item}
    seen: {table: item}
    user_id: {table: user}
    colour: {table: colour}
model:
  kind: two_tower
  query: {output_dim: 8}
  item: {output_dim: 8}
training: {batch_size: 8, epochs: 1}
evaluation: {ks: [5, 10]}
"""
ITEMS = "item,colour,price\n" + "".join(f"i{n},c{n % 3},{n}.5\n" for n in range(12))
LOG = "user,item,time,rating\n" + "".join(
    f"u{u},i{(5 * u + 7 * n) % 12},{100 * n + u},{1 + (u + n) % 5}\n" for u in range(8) for n in range(6)
)

Break = Callable[[Path], object]


def edit(old: str, new: str, name: str = "c.yaml", count: int = 1) -> Break:
    """Replaces text in a file."""

    def act(folder: Path) -> None:
        text = (folder / name).read_text()
        assert text.count(old) >= 1, f"{old!r} is not in {name}"
        (folder / name).write_text(text.replace(old, new, count))

    return act


def write(name: str, content: str | bytes) -> Break:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def parquet(**columns: object) -> Break:
    """The log as Parquet with these columns in place of its own."""

    def act(folder: Path) -> None:
        rows = [line.split(",") for line in LOG.splitlines()[1:]]
        users, items, times, ratings = zip(*rows, strict=True)
        own = {"user": users, "item": items, "time": list(map(int, times)), "rating": list(map(float, ratings))}
        pq.write_table(pa.table(own | columns), folder / "log.parquet")
        edit("log.csv", "log.parquet")(folder)

    return act


def given(values: object, vectors: object) -> Break:
    """Vectors of the colours."""
    return lambda folder: pq.write_table(pa.table({"value": values, "vector": vectors}), folder / "v.parquet")


def truncated(name: str, keep: int = 40) -> Break:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def flipped(name: str) -> Break:
    """One bit of the last byte is another."""

    def act(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)

    return act


def all_of(*breaks: Break) -> Break:
    return lambda folder: [each(folder) for each in breaks]


def nothing(folder: Path) -> None:
    pass


@dataclass(frozen=True)
class Mistake:
    command: str
    lines: tuple[tuple[str, ...], ...]
    """One for each line printed: how it begins (the place), and what else it says (what is wrong, the cure)."""
    broken: Break = nothing
    at: Literal["shop", "trained"] = "shop"
    """In a folder with a YAML and data, or in one with a finished run of `tests.trained`."""
    code: int = 1
    leaves: tuple[str, ...] = ()
    """Folders in which whole results of earlier steps stay."""


def check(id: str, broken: Break, *lines: tuple[str, ...], more: str = "") -> object:
    return pytest.param(Mistake(f"config check c.yaml {more}", lines, broken), id=id)


def data(id: str, broken: Break, *lines: tuple[str, ...], more: str = "") -> object:
    return pytest.param(Mistake(f"prepare c.yaml {more}", lines, broken), id=id)


def trained(id: str, command: str, *lines: tuple[str, ...], broken: Break = nothing) -> object:
    return pytest.param(Mistake(command, lines, broken, at="trained"), id=id)


def line(id: str, command: str, *lines: tuple[str, ...], broken: Break = nothing, code: int = 1) -> object:
    return pytest.param(Mistake(command, lines, broken, code=code), id=id)


def later(id: str, command: str, *lines: tuple[str, ...], broken: Break = nothing) -> object:
    return pytest.param(Mistake(command, lines, broken, leaves=("cache/prepared/", "runs/shop")), id=id)


NO_TIME = edit("  timestamp: time\n", "")
NO_HISTORY = all_of(edit("    seen: {kind: sequence, of: item_id}\n", ""), edit("    seen: {table: item}\n", ""))
TOWER = "query: {output_dim: 8}"
KEPT = edit("seen: {table: item}", "seen: {table: item, pooling: none}")
ENCODED = all_of(KEPT, edit(TOWER, "query: {output_dim: 8, sequence: {kind: transformer}}"))
WINDOWS = edit("epochs: 1", "epochs: 1, examples: sequences")
BUNDLE = "runs/small/bundle/1"
COLOURS = ["c0", "c1", "c2"]
WITH_GIVEN = "--set 'embeddings.tables.colour={method: vector, path: v.parquet, dim: 2}'"
RECOMMEND = "recommend runs/small --user 7"

MISTAKES = [
    # The YAML.
    check("unknown key", edit("colour}", "colour, poling: sum}"),
          ("c.yaml:24: embeddings.features.colour.poling: ", "unknown key", "did you mean `pooling`?")),
    check("unknown section", edit("training:", "trainig:"), ("c.yaml:29: trainig: ", "did you mean `training`?")),
    check("wrong type", edit("dim: 4", "dim: four"),
          ("c.yaml:19: embeddings.tables.colour.dim: ", '"four"', "expected an integer")),
    check("wrong kind", edit("kind: two_tower", "kind: twotower"),
          ("c.yaml:26: model.kind: ", "'twotower'", "did you mean `two_tower`?")),
    check("missing section", edit(CONFIG[CONFIG.index("model:") : CONFIG.index("training:")], ""),
          ("c.yaml:1: model: ", "the key is missing", "add `model: ...`")),
    check("empty file", write("c.yaml", ""),
          *((f"c.yaml:1: {key}: ", "missing", "add") for key in ("name", "data", "schema", "embeddings", "model"))),
    check("duplicate key", edit("training:", "name: again\ntraining:"),
          ("c.yaml:29: name: ", "stands twice", "c.yaml:1", "remove one")),
    check("tab", edit("  query", "\tquery"), ("c.yaml:27: not YAML", "indent with spaces")),
    check("open bracket", edit("[5, 10]", "[5, 10"), ("c.yaml:30: not YAML", "look at this line")),
    check("not UTF-8", write("c.yaml", b"name: caf\xe9\n"), ("c.yaml: byte 9 is not UTF-8", "in UTF-8")),
    check("two errors at once", all_of(edit("dim: 4", "dim: -4"), edit("epochs: 1", "epoch: 1")),
          ("c.yaml:19: embeddings.tables.colour.dim: ", "-4", "greater than 0"),
          ("c.yaml:29: training.epoch: ", "did you mean `epochs`?")),
    check("XLA without a ranker", edit("epochs: 1", "epochs: 1, xla: true"),
          ("c.yaml:29: training.xla: ", "compiles rankers", "remove it")),
    check("XLA for several devices", edit("epochs: 1", "epochs: 1, xla: true, strategy: mirrored"),
          ("c.yaml:29: training: ", "xla compiles for one device", "use default")),
    check("a history that no layer reads", edit("seen: {table: item}", "seen: {table: item, pooling: none}"),
          ("c.yaml:22: embeddings.features.seen.pooling: ", "no layer that reads a sequence", "model.query.sequence")),
    check("an encoder without a history", edit(TOWER, "query: {output_dim: 8, sequence: {kind: gru}}"),
          ("c.yaml:27: model.query.sequence: ", "no history stays a sequence", "pooling: none")),
    check("an encoder that is none", edit(TOWER, "query: {output_dim: 8, sequence: {kind: lstm}}"),
          ("c.yaml:27: model.query.sequence.kind: ", "'lstm'", "transformer")),
    check("heads that do not divide", all_of(ENCODED, edit("kind: transformer", "kind: transformer, heads: 3")),
          ("c.yaml:27: model.query.sequence.heads: ", "3 does not divide the width 8", "a divisor")),
    check("a search without a target",
          all_of(ENCODED, edit("item_id: {table: item", "item_id: {table: item, attention_table: user"),
                 edit("seen: {table: item,", "seen: {table: item, attention_table: user,")),
          ("c.yaml:21: embeddings.features.item_id.attention_table: ", "a two_tower has none", "remove it"),
          ("c.yaml:22: embeddings.features.seen.attention_table: ", "a two_tower has none", "remove it")),
    check("windows without an encoder", WINDOWS,
          ("c.yaml:29: training.examples: ", "model.query.sequence, and there is none", "use events")),
    check("windows of a pooled history",
          all_of(ENCODED, edit("    seen:", "    older: {kind: sequence, of: item_id}\n    seen:"),
                 edit("    seen: {table", "    older: {table: item}\n    seen: {table"), WINDOWS),
          ("c.yaml:23: embeddings.features.older.pooling: ", "not one at each place", "set `none`")),
    check("windows that are cut", all_of(ENCODED, edit("pooling: none", "pooling: none, max_length: 3"),
          WINDOWS),
          ("c.yaml:22: embeddings.features.seen.max_length: ", "schema.features.seen.max_length")),
    check("windows on replicas",
          all_of(ENCODED, edit("epochs: 1", "epochs: 1, examples: sequences, strategy: mirrored")),
          ("c.yaml:29: training.strategy: ", "unequal numbers of examples", "use default")),
    later("more windows than there are", "train c.yaml",
          ("shop: train: ", "8 windows of 50 events", "it counts windows"),
          broken=all_of(ENCODED, edit("batch_size: 8", "batch_size: 64, examples: sequences"))),
    check("a teacher that explains nothing", nothing,
          ("--set model.item: model.item.distill.unknown: ", "nothing is left that the teacher could explain"),
          more="--set 'model.item={output_dim: 8, distill: {teacher: runs/t, unknown: [item_id, colour]}}' "
          "--set schema.features.price.input=false"),
    check("a teacher without an id", nothing,
          ("--set model.item: model.item.distill.unknown: ", "'price' is no item feature of one value", "the ids"),
          more="--set 'model.item={output_dim: 8, distill: {teacher: runs/t, unknown: [price]}}'"),
    check("complements without time", all_of(NO_HISTORY, NO_TIME, edit("leave_last_out", "random")),
          ("--set complements: ", "needs schema.timestamp", "name the column"), more="--set complements={}"),
    check("complements that shrink", nothing,
          ("--set complements.optimizer: complements.optimizer.decay: ", "trained without decay", "remove it"),
          more="--set 'complements.optimizer={kind: lazy_adam, decay: {kind: decoupled, rate: 0.1}}'"),
    check("--set without a value", nothing, ("--set training.epochs: ", "--set dotted.key=value"),
          more="--set training.epochs"),
    check("--set of an unknown key", nothing, ("--set training.epoch: ", "did you mean `epochs`?"),
          more="--set training.epoch=3"),
    check("--set of a wrong type", nothing, ("--set training.epochs: ", '"many"', "expected an integer"),
          more="--set training.epochs=many"),
    check("include cycle",
          all_of(edit("name: shop", "include: d.yaml\nname: shop"), write("d.yaml", "include: c.yaml")),
          ("d.yaml:1: include: ", "c.yaml leads back", "break the circle")),
    check("include of nothing", edit("name: shop", "include: d.yaml\nname: shop"),
          ("c.yaml:1: include: ", "no file d.yaml", "relative to the one that includes it")),
    check("variable that is not set", edit("name: shop", "name: ${RECSYS_NO_SUCH}"),
          ("c.yaml:1: the environment variable RECSYS_NO_SUCH is not set", "export", "${RECSYS_NO_SUCH:-default}")),
    check("variable inside braces", edit("log.csv", "${RECSYS_NO_SUCH}"),
          ("c.yaml:3: not YAML", 'write "${VAR}" in quotes')),
    check("feature without a table", edit("    colour: {table: colour}\n", ""),
          ("c.yaml:19: embeddings.tables.colour: ", "no feature reads this table", "remove it"),
          ("c.yaml:20: embeddings.features: ", "'colour' (categorical) has no entry", "name the table")),
    check("table that is not there", edit("colour: {table: colour}", "colour: {table: color}"),
          ("c.yaml:19: embeddings.tables.colour: ", "no feature reads this table"),
          ("c.yaml:24: embeddings.features.colour.table: ", "no table 'color'", "the tables are item, user, colour")),
    check("table that nothing reads", edit("colour: {table: colour}", "colour: {table: item}"),
          ("c.yaml:19: embeddings.tables.colour: ", "no feature reads this table", "remove it")),
    check("width of zero", edit("dim: 4", "dim: 0"),
          ("c.yaml:19: embeddings.tables.colour.dim: ", "0", "greater than 0")),
    check("feature that names no table", edit("colour: {table: colour}", "colour: {pooling: sum}"),
          ("c.yaml:19: embeddings.tables.colour: ", "no feature reads this table"),
          ("c.yaml:24: embeddings.features.colour.table: ", "names no table; the tables are item, user, colour")),
    check("table for a number",
          edit("    colour: {table: colour}", "    colour: {table: colour}\n    price: {table: item}"),
          ("c.yaml:25: embeddings.features.price: ", "reads no table; `projection` is all it may say")),
    check("chunks of a table with a row for an id", edit("{table: colour}", "{table: colour, chunks: 2}"),
          ("c.yaml:24: embeddings.features.colour.chunks: ", "'colour' is full", "one row for an id; set it to 1")),
    check("no chunks at all", edit("{table: colour}", "{table: colour, chunks: 0}"),
          ("c.yaml:24: embeddings.features.colour.chunks: ", "0", "greater than 0")),
    check("longer than the schema's history", edit("seen: {table: item}", "seen: {table: item, max_length: 51}"),
          ("c.yaml:22: embeddings.features.seen.max_length: ", "51 is more than the schema's 50; lower it")),
    check("length of one value", edit("{table: colour}", "{table: colour, max_length: 3}"),
          ("c.yaml:24: embeddings.features.colour.max_length: ", "has one value; remove it")),
    check("sequence of one value", edit("{table: colour}", "{table: colour, pooling: none}"),
          ("c.yaml:24: embeddings.features.colour.pooling: ", "has one value; remove it")),
    check("sequence that nothing reads", edit("seen: {table: item}", "seen: {table: item, pooling: none}"),
          ("c.yaml:22: embeddings.features.seen.pooling: ", "two_tower has no layer that reads a sequence",
           "choose mean, sum or sqrtn")),
    check("unknown pooling", edit("{table: colour}", "{table: colour, pooling: max}"),
          ("c.yaml:24: embeddings.features.colour.pooling: ", '"max"', "expected 'none', 'mean', 'sum' or 'sqrtn'")),
    check("projected ids", edit("{table: colour}", "{table: colour, projection: 8}"),
          ("c.yaml:24: embeddings.features.colour.projection: ", "only vectors and numbers are projected",
           "remove it")),
    check("more features than rows", all_of(edit("user_id: {table: user}", "user_id: {table: colour}"),
                                            edit("    user: {dim: 8}\n", ""),
                                            edit("colour: {dim: 4}", "colour: {method: hashed, rows: 1, dim: 4}")),
          ("c.yaml:18: embeddings.tables.colour.rows: ", "1 rows cannot be shared out among 2 features; raise it")),
    check("full table without a vocabulary",
          edit("colour: {kind: categorical", "colour: {encoding: {kind: hash}, kind: categorical"),
          ("c.yaml:24: embeddings.features.colour.table: ", "'colour' has no vocabulary", "`method: multiplexed`")),
    check("unknown method", edit("colour: {dim: 4}", "colour: {method: multiplex, rows: 9, dim: 4}"),
          ("c.yaml:19: embeddings.tables.colour.method: ", "'multiplex'", "did you mean `multiplexed`?")),
    check("multiplexed table without rows", edit("colour: {dim: 4}", "colour: {method: multiplexed, dim: 4}"),
          ("c.yaml:19: embeddings.tables.colour.rows: ", "missing", "add `rows: ...`")),
    check("unknown precision", edit("colour: {dim: 4}", "colour: {dim: 4, precision: int4}"),
          ("c.yaml:19: embeddings.tables.colour.precision: ", '"int4"', "'int8'")),
    check("int8 on parameter servers", edit("colour: {dim: 4}", "colour: {dim: 4, precision: int8}"),
          ("c.yaml:19: embeddings.tables.colour.precision: ", "int8 rows cannot be cut over parameter servers",
           "train in float32"), more="--set training.strategy=parameter_server"),
    check("parts that do not divide the width", edit("colour: {dim: 4}", "colour: {method: mgqe, dim: 6}"),
          ("c.yaml:19: embeddings.tables.colour.parts: ", "4 does not divide dim 6")),
    check("codes of the tail beyond all codes", edit("colour: {dim: 4}", "colour: {method: mgqe, dim: 4, codes: 16}"),
          ("c.yaml:19: embeddings.tables.colour.tail_codes: ", "64 is more than codes, 16; lower it")),
    check("served precision of codes",
          edit("colour: {dim: 4}", "colour: {method: mgqe, dim: 4, served_precision: int8}"),
          ("c.yaml:19: embeddings.tables.colour.served_precision: ", "decides by itself", "remove it")),
    check("given vectors for two vocabularies",
          edit("colour: {table: colour}", "colour: {table: item}"),
          ("c.yaml:19: embeddings.tables.colour: ", "no feature reads this table"),
          ("--set embeddings.tables.item: ", "given vectors belong to one vocabulary", "colour, item_id", "two tables"),
          more="--set 'embeddings.tables.item={method: vector, path: v.parquet, dim: 8}'"),
    check("table optimizer that is none", edit("colour: {dim: 4}", "colour: {dim: 4, optimizer: {kind: adam}}"),
          ("c.yaml:19: embeddings.tables.colour.optimizer.kind: ", "'adam'", "lazy_adam")),
    check("history of a user feature", edit("of: item_id", "of: user_id"),
          ("c.yaml:14: schema.features.seen: ", "'user_id'", "no categorical item feature; name one")),
    check("history of what the model does not read", nothing,
          ("c.yaml:14: schema.features.seen: ", "'item_id'", "the model does not read; remove its `input: false`"),
          more="--set schema.features.item_id.input=false"),
    check("table for what the model does not read", nothing,
          ("c.yaml:24: embeddings.features.colour: ", "(input: false)", "remove the entry, or make it an input"),
          more="--set schema.features.colour.input=false"),
    check("tower without inputs", NO_HISTORY,
          ("c.yaml:9: schema.features: ", "the query tower has no feature; add one"),
          ("c.yaml:21: embeddings.features.user_id: ", "(input: false)"),
          more="--set schema.features.user_id.input=false"),
    check("propensities without negatives", edit("timestamp: time", "timestamp: time\n  propensity: rating"),
          ("c.yaml:9: schema.propensity: ", "need the events without reward too", "data.negatives")),
    check("feature called propensity", nothing, ("--set schema.features.propensity: ", "rename the feature"),
          more="--set 'schema.features.propensity={kind: numeric, role: context}'"),
    check("history without time", NO_TIME,
          ("c.yaml:13: schema.features.seen: ", "needs schema.timestamp", "name the column")),
    check("reserved feature name", nothing, ("--set schema.features.item: ", "rename the feature", "`column: item`"),
          more="--set 'schema.features.item={kind: categorical, role: item}' "
               "--set embeddings.features.item.table=item"),
    check("rare numbers without whole numbers", nothing,
          ("--set schema.features.cost: schema.features.cost.min_count: ", "has no rare numbers", "log_squared_bu"),
          more="--set 'schema.features.cost={kind: numeric, role: item, min_count: 5}'"),
    check("features of users without users", edit("user: user\n", "user: null\n"),
          ("c.yaml:13: schema.features.user_id: ", "describes the user, and schema.user is null", "role: context"),
          ("c.yaml:14: schema.features.seen: ", "a user's history, and schema.user is null", "remove the feature")),
    check("buckets without bucketize", nothing,
          ("--set schema.features.cost: schema.features.cost.buckets: ", "has no buckets", "transform: bucketize"),
          more="--set 'schema.features.cost={kind: numeric, role: item, buckets: 5}'"),
    check("unit without time", all_of(NO_TIME, NO_HISTORY, edit("schema:", "schema:\n  timestamp_unit: ms")),
          ("c.yaml:6: schema.timestamp_unit: ", "no `timestamp`", "remove the unit")),
    check("ranker without features", nothing, ("--set schema.features: there is no feature to rank by; add one",),
          more="--set 'model={kind: ranker}' --set 'data.negatives={column: rating, at_most: 2}' "
               "--set schema.features={} --set embeddings.features={} --set embeddings.tables={}"),
    check("split by time without time", all_of(NO_TIME, NO_HISTORY),
          ("c.yaml:4: data.split.kind: ", "needs schema.timestamp", "or use random")),
    check("ranker without negatives", nothing, ("c.yaml:2: data.negatives: ", "a ranker learns from negatives too"),
          more="--set 'model={kind: ranker}'"),
    check("rank above the width", nothing,
          ("--set model.interaction.projection_dim: ", "a rank of 99 saves nothing", "leave it out"),
          more="--set 'model={kind: ranker, interaction: {kind: cross}}' --set model.interaction.projection_dim=99 "
               "--set 'data.negatives={column: rating, at_most: 2}'"),
    check("towers of different widths", edit("item: {output_dim: 8}", "item: {output_dim: 32}"),
          ("c.yaml:25: model: ", "query tower ends in 8", "item tower in 32", "output_dim to one width")),
    check("monitor that is not measured", edit("[5, 10]", "[5, 10], monitor: ndcg@20"),
          ("c.yaml:30: evaluation: ", "'ndcg@20'", "it can be", "ndcg@10")),
    check("shares that leave nothing", nothing,
          ("--set data.split: ", "valid and test are 1.1 together", "leaves nothing to train on"),
          more="--set 'data.split={kind: random, valid: 0.6, test: 0.5}'"),
    check("validation after the last epoch", nothing,
          ("--set training: ", "every_epochs is 9, but there are 3 epochs", "set early_stopping: null"),
          more="--set 'training={epochs: 3, early_stopping: {every_epochs: 9}}'"),
    check("name with a slash", edit("name: shop", "name: a/b"), ("c.yaml:1: name: ", "'a/b'", "letter or digit")),
    check("negative seed", nothing, ("--set seed: ", "-1", "greater than or equal to 0"), more="--set seed=-1"),
    check("world too small for its events", nothing, ("--set data.source: ", "100 events", "ask for fewer"),
          more="--set 'data.source={kind: simulated, users: 2, items: 2, events: 100}'"),
    # The data.
    data("missing file", edit("log.csv", "lag.csv"),
         ("data.source.events: ", "no file", "lag.csv", "correct the path")),
    data("empty log", write("log.csv", ""), ("log.csv: not readable as CSV", "header line", "mend")),
    data("header alone", write("log.csv", "user,item,time,rating\n"),
         ("log.csv: no rows", "at least one row", "check")),
    data("missing column", edit("user,item,time", "usr,item,time", "log.csv"),
         ("log.csv: column 'user': ", "not there", "did you mean 'usr'?")),
    data("null users", edit("u3,", ",", "log.csv", 2), ("log.csv: column 'user': ", "2 rows", "drop these rows")),
    data("NaN labels", parquet(rating=[float("nan")] * 3 + [3.0] * 45),
         ("log.parquet: column 'rating': ", "3 rows hold no value", "drop these rows"),
         more="--set 'data.positives={column: rating, at_least: 3}'"),
    data("floats as categories", parquet(user=[float(n % 8) for n in range(48)]),
         ("log.parquet: column 'user': ", "floating-point", "cast the column")),
    data("item twice", edit("i1,", "i0,", "items.csv"),
         ("items.csv: column 'item': ", "1 id stands in more than one row (such as 'i0')", "keep one row of each")),
    data("no positives", nothing, ("log.csv: no event is positive", "change data.positives"),
         more="--set 'data.positives={column: rating, at_least: 6}'"),
    data("positive and negative", nothing,
         ("log.csv: column 'rating': ", "both positive and negative", "exclude each other"),
         more="--set 'model={kind: ranker}' --set 'data.positives={column: rating, at_least: 3}' "
              "--set 'data.negatives={column: rating, at_most: 3}'"),
    data("text for numbers", edit("3.5", "cheap", "items.csv"),
         ("items.csv: column 'price': ", "1 row holds text", "write numbers")),
    data("Latin-1", write("log.csv", LOG.replace("u1,", "\xe91,").encode("latin-1")),
         ("log.csv: not readable as CSV", "UTF8", "expected UTF-8", "convert")),
    data("truncated Parquet", all_of(parquet(), truncated("log.parquet", 200)),
         ("log.parquet: not readable as Parquet", "write the file again")),
    data("unknown public data set", nothing,
         ("public data set: none is named 'movielens-1b'", "did you mean 'movielens-1m'?"),
         more="--set 'data.source={kind: public, name: movielens-1b}'"),
    # What shows when the work has begun.
    later("batch larger than the data", "train c.yaml --set training.batch_size=999",
          ("shop: train: 32 positive rows", "999", "lower training.batch_size")),
    later("cluster without TF_CONFIG", "train c.yaml --set training.strategy=multi_worker",
          ("training.strategy: ", "multi_worker without", "set TF_CONFIG")),
    later("diverging", "train c.yaml --set embeddings.optimizer.kind=lazy_adam "
          "--set embeddings.optimizer.learning_rate=1e38 --set training.epochs=5",
          ("training step ", "the loss is nan", "lower the learning rates")),
    later("no given vectors", f"train c.yaml {WITH_GIVEN}",
          ("v.parquet: no such file", "expected a Parquet file with the columns `value` and `vector`")),
    later("NaN in a given vector", f"train c.yaml {WITH_GIVEN}",
          ("v.parquet: ", "not finite in the vector of 'c1'", "leave the row out"),
          broken=given(COLOURS, [[1.0, 2.0], [float("nan"), 0.0], [3.0, 4.0]])),
    later("given vector of another width", f"train c.yaml {WITH_GIVEN}",
          ("v.parquet: ", "a vector of 3 numbers", "expected 2, the table's dim"),
          broken=given(COLOURS, [[1.0, 2.0], [1.0, 2.0, 3.0], [3.0, 4.0]])),
    later("given vector twice", f"train c.yaml {WITH_GIVEN}",
          ("v.parquet: ", "'c1' twice", "remove the other rows"),
          broken=given(["c1", "c0", "c1"], [[1.0, 2.0]] * 3)),
    later("given vectors of other values", f"train c.yaml {WITH_GIVEN}",
          ("v.parquet: ", "none of the 3 values of 'colour'", "expected vectors by the feature's values"),
          broken=given(["red", "green", "blue"], [[1.0, 2.0]] * 3)),
    later("given numbers that are no vectors", f"train c.yaml {WITH_GIVEN}",
          ("v.parquet: ", "vectors of type double", "expected"), broken=given(COLOURS, [1.0, 2.0, 3.0])),
    later("given vector of nobody", f"train c.yaml {WITH_GIVEN}",
          ("v.parquet: ", "1 rows without a value", "remove these rows"),
          broken=given(["c0", None, "c2"], [[1.0, 2.0]] * 3)),
    trained("promise that is not kept", "export runs/small --set 'retrieval.index={kind: scann, leaves: 40, "
            "leaves_to_search: 1, reorder: 10, promise: {recall@10: 1.0}}'",
            ("retrieval.index.promise: at best recall@10 is 0.", "1 of 40 leaves", "expected recall@10 1.0",
             "leave out leaves")),
    trained("aligned to nothing", "export runs/small --set retrieval.align_to=runs/nothing",
            ("", "runs/nothing: no such folder", "expected a bundle")),
    trained("promise in no time", "export runs/small --set retrieval.index.milliseconds=0.000001",
            ("retrieval.index.promise: at best ", " ms (", "and 1e-06 milliseconds", "allow more milliseconds")),
    line("promise of nothing", "config check c.yaml --set 'retrieval.index={kind: scann, promise: {recall: 0.9}}'",
         ("--set retrieval.index: retrieval.index.promise.recall", "recall@")),
    trained("more leaves than items", "export runs/small --set retrieval.index.leaves=201",
            ("retrieval.index: ", "leaves is 201", "200 items fill at most 50", "set it to 0")),
    # The run directory.
    trained("run of another config", "train small.yaml --set seed=5",
            ("runs/small: the run of another configuration", "choose another `name`")),
    line("not trained", "evaluate c.yaml", ("runs/shop: no trained model", "recsys train")),
    trained("run without checkpoint", "evaluate runs/small", ("runs/small: no trained model", "recsys train"),
            broken=lambda folder: [p.unlink() for p in (folder / "runs/small/checkpoints").iterdir()]),
    trained("corrupted checkpoint", "evaluate runs/small",
            ("runs/small/checkpoints/ckpt-3: cannot be restored", "delete the run directory"),
            broken=write("runs/small/checkpoints/ckpt-3.index", b"nonsense")),
    trained("truncated best weights", "evaluate runs/small",
            ("runs/small/checkpoints/best-", "cannot be restored", "delete the run directory"),
            broken=lambda folder: [p.write_bytes(p.read_bytes()[:999])
                                   for p in (folder / "runs/small/checkpoints").glob("best-*.data*")]),
    trained("corrupted origin", "evaluate runs/small", ("runs/small/origin.json: cannot be read", "remove the folder"),
            broken=write("runs/small/origin.json", "{")),
    trained("record that is no record", "export runs/small",
            ("runs/small/metrics.json: ", "evaluate the run again"), broken=truncated("runs/small/metrics.json")),
    line("folder that is no run", "train .", (".: no run directory", "a YAML file")),
    line("runs in a file", "train c.yaml --runs log.csv", ("log.csv: is a file", "another one by --runs")),
    # The bundle.
    line("no bundle", "recommend runs/shop --user 1", ("runs/shop: no such folder", "recsys export RUN")),
    trained("bundle file missing", RECOMMEND, (f"{BUNDLE}/items.parquet: is missing", "export the run again"),
            broken=lambda folder: (folder / BUNDLE / "items.parquet").unlink()),
    trained("bundle tampered with", RECOMMEND, (f"{BUNDLE}/index/vectors.npy: has SHA-256", "export the run again"),
            broken=flipped(f"{BUNDLE}/index/vectors.npy")),
    trained("manifest truncated", RECOMMEND,
            (f"{BUNDLE}/manifest.json: cannot be read as JSON", "export the run again"),
            broken=truncated(f"{BUNDLE}/manifest.json")),
    trained("manifest of another format", RECOMMEND, (f"{BUNDLE}/manifest.json: format 99", "export the run again"),
            broken=edit('"format": 2', '"format": 99', f"{BUNDLE}/manifest.json")),
    trained("other TensorFlow", RECOMMEND,
            (f"{BUNDLE}/manifest.json: versions.tensorflow: ", "TensorFlow 2.9.*", "pip install"),
            broken=edit('"tensorflow": "2.20.', '"tensorflow": "2.9.', f"{BUNDLE}/manifest.json")),
    trained("unknown user", "recommend runs/small --user nobody", ("user: no user 'nobody'", "features")),
    trained("features that are no JSON", "recommend runs/small --features {", ("--features: is no JSON", "such as")),
    trained("unknown feature", """recommend runs/small --features '{"devise": "tv"}'""",
            ("features.devise: ", "did you mean device?")),
    trained("no items wanted", f"{RECOMMEND} -k 0", ("k: 0", "leave it out")),
    # The command line.
    line("unknown command", "trian c.yaml", ("command line: ", "'trian'", "Did you mean 'train'?"), code=2),
    line("unknown option", "train c.yaml --epochs 3", ("command line: ", "--epochs", "recsys train --help"), code=2),
    line("missing argument", "train", ("command line: ", "CONFIG_OR_RUN", "recsys train --help"), code=2),
    line("text for a number", "recommend runs/shop --user 1 -k ten",
         ("command line: ", "'-k'", "valid integer", "recsys recommend --help"), code=2),
    line("no YAML there", "run d.yaml", ("d.yaml: no such file", "a YAML file")),
    line("init without a file", "init lag.csv", ("recsys init: events: ", "no file lag.csv", "correct the path")),
    line("init over a file", "init log.csv", ("log.yaml: is already there", "--force"),
         broken=write("log.yaml", "a: 1")),
    line("simulate into a full folder", "data simulate --out .", (".: is already there", "name another folder")),
]  # fmt: skip


def snapshot(folder: Path) -> dict[str, bytes]:
    """Everything below a folder: files with their content, folders, links. (TensorFlow removes its sources at exit.)"""
    found = [path for path in folder.rglob("*") if not path.name.startswith("__autograph_generated_file")]
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in found}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shop"
    (folder / "cache" / "prepared").mkdir(parents=True)
    for name, content in (("c.yaml", CONFIG), ("items.csv", ITEMS), ("log.csv", LOG)):
        (folder / name).write_text(content)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RECSYS_CACHE", str(folder / "cache"))
    return folder


def answer(command: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit code and the lines that name problems; nothing may look like a trace."""
    code = main(shlex.split(command))
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    err = err.replace(f"{Path.cwd()}/", "")
    return code, [line.removeprefix("error: ") for line in err.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_with_its_cure_and_leaves_nothing(
    mistake: Mistake, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = request.getfixturevalue("shop") if mistake.at == "shop" else request.getfixturevalue("trained_copy").folder
    mistake.broken(folder)
    # AutoGraph puts the code that it makes there, and leaves Python's cache of it.
    (folder / "temporary" / "__pycache__").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "temporary"))
    before = snapshot(folder)
    assert before
    code, lines = answer(mistake.command, capfd)
    assert code == mistake.code, lines
    assert len(lines) == len(mistake.lines), lines
    for found, (place, *parts) in zip(lines, mistake.lines, strict=True):
        assert found.startswith(place), found
        assert all(part in found for part in parts), found
    after = snapshot(folder)
    left = {name for name in after.keys() - before.keys() if not f"{name}/".startswith(mistake.leaves or "//")}
    left -= {"runs", "cache/prepared"} if mistake.leaves else set()
    assert not left
    assert not [name for name in after.keys() - before.keys() if "/." in name or "temp" in name], "half-written"
    assert {name: content for name, content in after.items() if name in before} == before, "something has changed"


def test_there_are_many_mistakes() -> None:
    assert len({case.id for case in MISTAKES}) == len(MISTAKES) >= 30  # type: ignore[attr-defined]


def test_a_full_disk_is_no_bug(shop: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("recsys.run_directory.write_text", full)
    code, lines = answer("prepare c.yaml", capfd)
    assert code == 1
    assert lines == ["runs/shop/config.yaml: No space left on device; choose another folder, or make room and rights"]


def test_what_a_mistake_leaves_does_not_stand_in_the_way(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Found wrong, mended, run again under the same name."""
    assert answer("run c.yaml --set training.batch_size=999", capfd)[0] == 1
    assert answer("run c.yaml", capfd) == (0, [])
    assert (shop / "runs/shop/bundle/1/manifest.json").exists()
