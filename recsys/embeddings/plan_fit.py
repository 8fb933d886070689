"""Whether a plan fits a config, before any data are read. Needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from recsys.embeddings.config import EmbeddingsConfig, FullTable, vocabulary_owner
from recsys.embeddings.plan import ElementBlock, EmbeddingPlan, TablePlan
from recsys.errors import ConfigError, Problem
from recsys.schema.config import SchemaConfig


def fitting_plan(config: EmbeddingsConfig, schema: SchemaConfig) -> EmbeddingPlan | None:
    """The plan that a config names, if it names one.

    Args:
        config: whose own parts fit each other and the schema.
        schema: of the data.

    Raises:
        ConfigError: the plan does not fit the config; a problem for each reason.
        DataError: it cannot be read.
    """
    if config.plan is None:
        return None
    plan = EmbeddingPlan.load(Path(config.plan))
    found = [
        Problem(f"{config.plan}: tables.{name}{key}", text, cure="or make a plan for this config: recsys search")
        for name, table in plan.tables.items()
        for key, text in _problems(name, table, config, schema)
    ]
    if found:
        raise ConfigError(found)
    return plan


def _problems(name: str, plan: TablePlan, config: EmbeddingsConfig, schema: SchemaConfig) -> Iterator[tuple[str, str]]:
    table = config.tables.get(name)
    if table is None:
        yield "", f"no table {name!r} in the config; it has {', '.join(config.tables)}"
        return
    if not isinstance(table, FullTable):
        yield "", f"a plan is for full tables, and {name!r} is {table.method}; set its method to full"
        return
    if plan.dim != table.dim:
        yield (
            ".dim",
            f"made for dim {plan.dim}, and the config's table {name!r} has {table.dim}; set that to {plan.dim}",
        )
    if table.precision != "float32":
        text = f"rows of {table.precision} cannot be trained under a plan"
        yield "", f"{text}; set precision of {name!r} to float32, and served_precision to {table.precision}"
    if table.served_precision == "int8" and any(isinstance(block, ElementBlock) for block in plan.blocks):
        yield "", f"single numbers have no row whose scale int8 needs; set served_precision of {name!r} to float16"
    owners = dict.fromkeys(vocabulary_owner(reader, schema.features) for reader in config.readers(name))
    for owner in plan.vocabularies:
        if owner not in owners:
            text = f"no feature that reads table {name!r} has this vocabulary"
            yield f".vocabularies.{owner}", f"{text}; they are {', '.join(owners)}"
    lacking = [owner for owner in owners if owner not in plan.vocabularies]
    if lacking:
        text = f"lacks {', '.join(map(repr, lacking))}, which table {name!r} holds too"
        yield ".vocabularies", f"{text}; give it a table of its own"
