"""Raw requests, a second encoder for them (plain Python on the vocabularies, independent of the graph's), and a process
that answers them from a bundle alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys._compat import tf
from recsys.bundle.manifest import signature_name
from recsys.data.dataset import CategoricalInfo, SequenceInfo
from recsys.data.encoding import fingerprint, oov_bucket
from recsys.data.prepared import Features, Prepared

Raw = dict[str, NDArray[Any]]
"""The inputs of a signature by feature name."""
UNSEEN = ["never seen", "не видно", "🦆", "u00 ", "Film 1", "\N{LATIN SMALL LETTER E WITH ACUTE}", "e\u0301"]


def padded(rows: list[list[str]]) -> NDArray[Any]:
    out = np.full((len(rows), max([1, *map(len, rows)])), "", dtype=object)
    for n, row in enumerate(rows):
        out[n, : len(row)] = row
    return out


def random_requests(prepared: Prepared, count: int, seed: int = 0) -> Raw:
    """Known, unseen and missing values; histories from empty to longer than any window, with gaps and ages."""
    rng = np.random.default_rng(seed)

    def one_of(known: list[str]) -> str:
        pool = (known, UNSEEN, [""])[rng.choice(3, p=(0.6, 0.25, 0.15))]
        return pool[rng.integers(len(pool))]

    def many(known: list[str], most: int) -> list[str]:
        """No missing value stands last: there it would be padding."""
        values = [one_of(known) for _ in range(rng.integers(0, most + 1))]
        return [*values[:-1], known[0]] if values else []

    users, items = prepared.users["user"].to_pylist(), prepared.items["item"].to_pylist()
    recent = [many(items, 9) for _ in range(count)]
    ages = np.zeros((count, max(map(len, recent))), np.float32)
    for n, row in enumerate(recent):
        ages[n, : len(row)] = np.sort(rng.exponential(1e5, len(row)))[::-1]
    hours = np.where(rng.random(count) < 0.2, np.nan, rng.integers(-3, 24, count)).astype(np.float32)
    return {
        "member": np.array([one_of(users) for _ in range(count)], object),
        "interests": padded([[v for v in many(["jazz", "čas", "数学"], 5) if v] for _ in range(count)]),
        "age": np.where(rng.random(count) < 0.2, np.nan, rng.uniform(0, 90, count)).astype(np.float32),
        "taste": (rng.normal(size=(count, 2)) * (rng.random(count) < 0.8)[:, None]).astype(np.float32),
        "device": np.array([one_of(["fön", "tv", "téléphone"]) for _ in range(count)], object),
        "hour": np.where(rng.random(count) < 0.2, np.nan, rng.uniform(-1e3, 1e3, count)).astype(np.float32),
        "hours": hours,
        "time_of_day": hours,
        "recent": padded(recent),
        "recent.age": ages,
        "studios": padded([many([f"stúdió {n}" for n in range(6)], 6) for _ in range(count)]),
    }


def encode(prepared: Prepared, raw: Raw) -> Features:
    """What the model is trained on, for these raw values."""
    features: Features = {}
    for name, values in raw.items():
        if name.endswith(".age"):
            continue
        info = prepared.info.features[name]
        if values.dtype != object:
            features[name] = values
        elif isinstance(info, SequenceInfo):
            keep = [_newest(row, info.max_length) for row in values]
            ids = _ids(prepared, info.of, values)
            features[name] = _window(ids, keep, info.max_length)
            if info.age:
                features[f"{name}.age"] = _window(raw[f"{name}.age"], keep, info.max_length)
        else:
            features[name] = _ids(prepared, name, values)
            if values.ndim == 2:
                length = info.max_length  # type: ignore[union-attr]
                features[name] = _window(features[name], [slice(0, length)] * len(values), length)
    return features


def _newest(row: NDArray[Any], length: int) -> slice:
    count = max([n + 1 for n, value in enumerate(row) if value != ""], default=0)
    return slice(max(0, count - length), count)


def _window(values: NDArray[Any], keep: list[slice], length: int) -> NDArray[Any]:
    out = np.zeros((len(values), length), values.dtype)
    for n, part in enumerate(keep):
        kept = values[n, part]
        out[n, : len(kept)] = kept
    return out


def _ids(prepared: Prepared, name: str, values: NDArray[Any]) -> NDArray[Any]:
    info, flat = prepared.info.features[name], values.ravel()
    if not isinstance(info, CategoricalInfo):
        return fingerprint(flat).reshape(values.shape)
    texts = pq.read_table(prepared.path / "vocab" / f"{name}.parquet")["value"].to_pylist()
    known = {"": 0} | {text: 1 + info.oov_rows + row for row, text in enumerate(texts)}
    oov = 1 + oov_bucket(flat, info.oov_rows)
    ids = [known.get(text, int(bucket)) for text, bucket in zip(flat, oov, strict=True)]
    return np.array(ids, np.int32).reshape(values.shape)


def in_a_fresh_process(bundle: Path, requests: Raw, folder: Path) -> dict[str, NDArray[Any]]:
    """What `fresh.py` makes of the bundle and the requests."""
    arrays = {signature_name(name): a.astype(str) if a.dtype == object else a for name, a in requests.items()}
    np.savez(folder / "requests.npz", **arrays)
    script = Path(__file__).with_name("fresh.py")
    paths = [bundle, folder / "requests.npz", folder / "results.npz"]
    # Isolated, and away from the repository: nothing can be imported from there; nor is Keras chosen for it.
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-I", script, *paths], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return dict(np.load(folder / "results.npz"))


def tensors(raw: Raw) -> dict[str, tf.Tensor]:
    return {name: tf.constant(a, tf.string if a.dtype == object else tf.float32) for name, a in raw.items()}


def raw_items(table: pa.Table, prepared: Prepared) -> Raw:
    """What the item tower takes of `items.parquet`, which has columns for filters too."""
    return raw_table(table.select([f"raw.{name}" for name in prepared.names("item")]))


def raw_table(table: pa.Table, prefix: str = "raw.") -> Raw:
    """The `raw.FEATURE` columns as a signature takes them."""
    raw: Raw = {}
    for column in table.column_names:
        if not column.startswith(prefix):
            continue
        name, values = column.removeprefix(prefix), table[column].to_pylist()
        if pa.types.is_string(table[column].type):
            raw[name] = np.array([v or "" for v in values], object)
        elif pa.types.is_floating(table[column].type):
            raw[name] = np.array([np.nan if v is None else v for v in values], np.float32)
        elif pa.types.is_string(table[column].type.value_type):
            raw[name] = padded([v or [] for v in values])
        else:
            raw[name] = np.array([v or [0.0, 0.0] for v in values], np.float32)
    return raw


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest distance of a vector from the expected one, by that one's length."""
    return float((np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


def request_of(raw: Raw, n: int) -> dict[str, Any]:
    """Row n as JSON would carry it: shorter lists, missing values left out."""
    request: dict[str, Any] = {}
    for name, values in raw.items():
        value = values[n]
        if values.ndim == 2 and values.dtype == object:
            length = max([1 + at for at, text in enumerate(value) if text != ""], default=0)
            request[name] = [text or None for text in value[:length]]
            if f"{name}.age" in raw:
                request[f"{name}.age"] = raw[f"{name}.age"][n, :length].tolist()
        elif name == "taste":
            request[name] = value.tolist() if value.any() else None
        elif not name.endswith(".age") and value != "" and value == value:
            request[name] = value if isinstance(value, str) else float(value)
    return request
