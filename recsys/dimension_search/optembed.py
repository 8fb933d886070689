"""OptEmbed's first two phases on an experiment: train the supernet, evolve its widths."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from recsys.config.base import Config, Many
from recsys.dimension_search.workshop import Workshop
from recsys.embeddings.optimizers.config import CoupledDecay, LazyAdamConfig
from recsys.embeddings.plan import EmbeddingPlan
from recsys.evaluation import evaluate_model
from recsys.files import write_text
from recsys.search.config import OptEmbedSearch
from recsys.search.evolution import Population, Scored
from recsys.search.fields import unreachable
from recsys.search.optembed import kept_rows, plan_for, search_widths

FOLDER = "optembed"
SUPERNET = "optembed-supernet"


class _ScoredWidths(Config):
    widths: Many[int]
    quality: float
    size: int


class _State(Config):
    """`population.json`"""

    generation: int
    scored: Many[_ScoredWidths]


class SupernetSearch:
    """A supernet in place of the searched tables.

    Its rows are trained by lazy Adam with coupled decay, as the paper's are, at the learning rate of the config's own
    lazy Adam, or the usual one where it has another optimizer, and without the config's `training.schedule`.

    Args:
        workshop: the experiment.
        method: of the search.
        report: is told what is being done.
    """

    def __init__(self, workshop: Workshop, method: OptEmbedSearch, report: Callable[[str], object]) -> None:
        self._workshop, self._method, self._report = workshop, method, report

    def plan(self, budget: int) -> EmbeddingPlan:
        """The widths of highest quality within a budget.

        Raises:
            ConfigError: none of those that were tried keeps to it.
        """
        population, kept = self._found
        best = population.best(budget)
        if best is None:
            raise unreachable(budget, min(each.size for each in population.scored))
        workshop = self._workshop
        origin = workshop.origin("optembed").model_copy(
            update={"budget": budget, "metrics": {workshop.experiment.monitor: best.quality}}
        )
        return plan_for(workshop.fields, kept, best.candidate, origin)

    @cached_property
    def _found(self) -> tuple[Population, list[Any]]:
        """All widths that were tried, and the rows that are kept."""
        workshop, monitor = self._workshop, self._workshop.experiment.monitor
        supernet = workshop.open(workshop.with_tables(SUPERNET, self._tables(), schedule=False))
        with workshop.timed(FOLDER):
            self._report("optembed: training the supernet")
            supernet.train()
            model, prepared, config = supernet.model, supernet.prepared, supernet.config.evaluation

            def measure() -> float:
                return evaluate_model(model, prepared, "valid", config, validation=True).metrics["model"][monitor]

            population = self._resumed()
            evolution = self._method.evolution
            generations = search_widths(
                model.embeddings, workshop.fields, measure, evolution, workshop.config.seed, population
            )
            for population in generations:
                self._report(f"optembed: generation {population.generation} of {evolution.generations + 1}")
                self._save(population)
        return population, kept_rows(model.embeddings, workshop.fields)

    def _tables(self) -> dict[str, dict[str, Any]]:
        embeddings, found = self._workshop.config.embeddings, dict[str, dict[str, Any]]()
        for name, table in self._workshop.tables.items():
            decay = CoupledDecay(kind="coupled", rate=self._method.decay)
            known = embeddings.optimizer_of(name)
            adam = known if isinstance(known, LazyAdamConfig) else LazyAdamConfig(kind="lazy_adam")
            optimizer = adam.model_copy(update={"decay": decay})
            found[name] = {
                "method": "optembed",
                "alpha": self._method.alpha,
                "threshold_learning_rate": self._method.threshold_learning_rate,
                "optimizer": optimizer.model_dump(mode="json"),
                **{key: table[key] for key in ("dim", "initializer", "served_precision")},
            }
        return found

    def _resumed(self) -> Population:
        path = self._workshop.folder / FOLDER / "population.json"
        if not path.exists():
            return Population()
        state = _State.model_validate_json(path.read_bytes())
        return Population([Scored(each.widths, each.quality, each.size) for each in state.scored], state.generation)

    def _save(self, population: Population) -> None:
        scored = [_ScoredWidths(widths=s.candidate, quality=s.quality, size=s.size) for s in population.scored]
        state = _State(generation=population.generation, scored=tuple(scored))
        write_text(self._workshop.folder / FOLDER / "population.json", state.model_dump_json() + "\n")
