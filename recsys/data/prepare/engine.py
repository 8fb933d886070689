"""Where the Ibis expressions run: DuckDB in process, or Spark.

Both engines get the same expressions. What differs is here: connecting, storing an intermediate table, and getting
rows out in bounded memory.
"""

from __future__ import annotations

import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.config import DuckDBEngine, Engine, SparkEngine
from recsys.errors import DataError, InstallError

BATCH_ROWS = 262_144
CHECK = "check that the files are whole, and that the disk of the cache has room"


class Runner(AbstractContextManager["Runner"], ABC):
    """Runs Ibis expressions; everything it stores lies in `folder` and is forgotten with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @abstractmethod
    def read(self, name: str, paths: tuple[Path, ...]) -> ir.Table:
        """Parquet files as one table."""

    @abstractmethod
    def store(self, name: str, table: ir.Table) -> ir.Table:
        """Compute a table once, and keep it on disk."""

    @abstractmethod
    def batches(self, table: ir.Table) -> Iterator[pa.RecordBatch]:
        """The rows in their order, in bounded memory. One such stream at a time."""

    @abstractmethod
    def fetch(self, table: ir.Table) -> pa.Table:
        """A small table, in memory."""

    def put(self, name: str, table: pa.Table) -> ir.Table:
        """An Arrow table, for expressions to join."""
        path = self._folder / f"{name}.parquet"
        pq.write_table(table, path)
        return self.read(name, (path,))


class _DuckDB(Runner):
    def __init__(self, folder: Path, config: DuckDBEngine) -> None:
        super().__init__(folder)
        self._connection = ibis.duckdb.connect(
            folder / "duckdb.db",
            memory_limit=f"{config.memory_limit_gib}GiB",
            temp_directory=str(folder / "spill"),
            preserve_insertion_order=False,
        )
        # DuckDB 2.0 concludes from Parquet's minimum and maximum, which leave NaN out, that `isnan` is false.
        self._connection.raw_sql("SET disabled_optimizers = 'statistics_propagation'")

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._connection.disconnect()
        if isinstance(error, duckdb.OutOfMemoryException):
            raise DataError(
                "data.engine.memory_limit_gib", "DuckDB ran out of memory", "a higher limit", "raise it, or use Spark"
            ) from error
        if isinstance(error, duckdb.Error):
            raise DataError("data.source", f"DuckDB cannot go on ({_line(error)})", cure=CHECK) from error

    def read(self, name: str, paths: tuple[Path, ...]) -> ir.Table:
        return self._connection.read_parquet([str(path) for path in paths], table_name=name, hive_partitioning=False)

    def store(self, name: str, table: ir.Table) -> ir.Table:
        return self._connection.create_table(name, table)

    def batches(self, table: ir.Table) -> Iterator[pa.RecordBatch]:
        # Not Ibis' own `to_pyarrow_batches`: it calls a method that DuckDB 2 has no more.
        yield from self._connection.con.sql(self._connection.compile(table)).to_arrow_reader(BATCH_ROWS)

    def fetch(self, table: ir.Table) -> pa.Table:
        return table.to_pyarrow()


class _Spark(Runner):
    def __init__(self, folder: Path, config: SparkEngine) -> None:
        super().__init__(folder)
        os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
        self._session = _spark_session(config, folder)
        self._connection = ibis.pyspark.connect(self._session)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

        self._session.stop()
        if isinstance(error, Py4JError | PySparkException):
            raise DataError("data.source", f"Spark cannot go on ({_line(error)})", cure=CHECK) from error

    def _frame(self, table: ir.Table) -> Any:
        return self._session.sql(self._connection.compile(table))

    def read(self, name: str, paths: tuple[Path, ...]) -> ir.Table:
        self._session.read.parquet(*map(str, paths)).createOrReplaceTempView(name)
        return self._connection.table(name)

    def store(self, name: str, table: ir.Table) -> ir.Table:
        path = self._folder / name
        self._frame(table).write.parquet(str(path))
        return self.read(name, (path,))

    def batches(self, table: ir.Table) -> Iterator[pa.RecordBatch]:
        path = self._folder / "outgoing"
        self._frame(table).write.mode("overwrite").parquet(str(path))
        for part in sorted(path.glob("part-*.parquet")):  # Spark numbers the ranges of a sorted table in order
            yield from pq.ParquetFile(part).iter_batches(BATCH_ROWS)
        shutil.rmtree(path)

    def fetch(self, table: ir.Table) -> pa.Table:
        return self._frame(table).toArrow()


def _spark_session(config: SparkEngine, folder: Path) -> Any:
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise InstallError("pyspark", "not installed", "PySpark 4.0", "pip install 'pyspark>=4.0,<4.1'") from error
    settings = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
        "spark.sql.ansi.enabled": "true",
        "spark.local.dir": str(folder / "spill"),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }
    if config.master.startswith("local"):
        settings["spark.sql.shuffle.partitions"] = "8"  # Spark's 200 are meant for clusters
    builder = SparkSession.builder.master(config.master).appName("recsys prepare")
    for key, value in settings.items():
        builder = builder.config(key, value)
    try:
        session = builder.getOrCreate()
    except Exception as error:  # Py4J raises its own kinds, and plain RuntimeErrors where Java is missing
        raise InstallError(
            f"Spark at {config.master}",
            f"does not start ({_line(error)})",
            "a Java runtime (17) and a reachable master",
            "install a Java runtime, or leave data.engine out to run on DuckDB",
        ) from error
    session.sparkContext.setLogLevel("ERROR")
    return session


def start(config: Engine, folder: Path) -> Runner:
    """The engine, working in `folder`."""
    return _Spark(folder, config) if isinstance(config, SparkEngine) else _DuckDB(folder, config)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
