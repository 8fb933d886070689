"""Evolution over widths: OptEmbed's second phase, with a byte budget as the second objective.

A candidate gives each field its width, 1 to D. The weights stand still, so a candidate costs one evaluation. As in the
paper, each generation adds mutants (each width drawn anew with some probability) and crossovers (each width from one of
two parents) of the best so far. Where the paper's code falls short, this does not follow it: candidates are tuples that
nobody can change; crossover cuts between fields, not between widths; parents are the best of *all* generations, and
nothing is measured twice.

What the paper lacks is a price. Here a candidate has a size too, and parents are taken from the front of those that no
other beats in both, then from the next front; so the whole trade is searched at once, and a budget picks from it.

Reference: Lyu et al., "OptEmbed: Learning Optimal Embedding Table for Click-through Rate Prediction", CIKM 2022,
section 3.3; non-dominated sorting and crowding as in Deb et al., "NSGA-II", 2002.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from recsys.search.config import EvolutionConfig

Candidate = tuple[int, ...]
"""The width of each field, 1 to D."""


@dataclass(frozen=True)
class Scored:
    """A candidate that has been measured."""

    candidate: Candidate
    quality: float
    """Higher is better; of the validation part."""
    size: int
    """Bytes."""


@dataclass
class Population:
    """All that has been measured, in that order, and the generations that are done: what a killed search resumes."""

    scored: list[Scored] = field(default_factory=list)
    generation: int = 0

    def best(self, budget: int | None = None) -> Scored | None:
        """The one of highest quality within the budget in bytes; of equals the smallest, then the earliest."""
        fitting = [each for each in self.scored if budget is None or each.size <= budget]
        return max(fitting, key=lambda each: (each.quality, -each.size), default=None)

    def front(self) -> list[Scored]:
        """Those that no other beats, from the smallest on."""
        return fronts(self.scored)[0] if self.scored else []


def evolve(
    measure: Callable[[Candidate], float],
    size: Callable[[Candidate], int],
    fields: int,
    dim: int,
    config: EvolutionConfig,
    seed: int,
    population: Population | None = None,
) -> Iterator[Population]:
    """Searches generation by generation; each is a function of the seed, its number and those before it.

    Args:
        measure: quality of a candidate on validation data; called once for each.
        size: bytes of a candidate.
        fields: how many widths there are.
        dim: D, the greatest width.
        config: how many generations, mutants, crossovers, parents.
        seed: of all draws.
        population: to resume from; a new search without it.

    Yields:
        The population after each generation: the same object every time.
    """
    found = population or Population()
    known = {each.candidate for each in found.scored}
    while found.generation <= config.generations:
        rng = np.random.default_rng([seed, found.generation])
        children: Iterable[Candidate]
        if found.generation == 0:
            children = _founders(rng, fields, dim, config)
        else:
            parents = select(found.scored, config.parents, by_size=config.by_size)
            children = _children([each.candidate for each in parents], rng, dim, config)
        for child in children:
            if child not in known:
                known.add(child)
                found.scored.append(Scored(child, measure(child), size(child)))
        found.generation += 1
        yield found


def _founders(rng: np.random.Generator, fields: int, dim: int, config: EvolutionConfig) -> list[Candidate]:
    """The full widths; where bytes count the least, so that all that lies between is within reach; others at random."""
    drawn = rng.integers(1, dim + 1, (config.mutations + config.crossovers - 1, fields))
    ends = [(dim,) * fields, *([(1,) * fields] if config.by_size else [])]
    return [*ends, *(tuple(map(int, row)) for row in drawn)]


def _children(
    parents: Sequence[Candidate], rng: np.random.Generator, dim: int, config: EvolutionConfig
) -> Iterator[Candidate]:
    for _ in range(config.mutations):
        yield mutated(parents[int(rng.integers(len(parents)))], rng, dim, config.mutation_rate)
    for _ in range(config.crossovers if len(parents) > 1 else 0):
        first, second = rng.choice(len(parents), 2, replace=False)
        yield crossed(parents[int(first)], parents[int(second)], rng)


def mutated(parent: Candidate, rng: np.random.Generator, dim: int, rate: float) -> Candidate:
    """A copy in which each width is drawn anew, from 1 to `dim`, with probability `rate`; at least one is."""
    changed = rng.random(len(parent)) < rate
    changed[rng.integers(len(parent))] = True
    drawn = rng.integers(1, dim + 1, len(parent))
    return tuple(int(new) if change else old for old, new, change in zip(parent, drawn, changed, strict=True))


def crossed(first: Candidate, second: Candidate, rng: np.random.Generator) -> Candidate:
    """Each width from one of the two, with equal odds."""
    return tuple(a if coin else b for a, b, coin in zip(first, second, rng.random(len(first)) < 0.5, strict=True))


def select(scored: Sequence[Scored], count: int, by_size: bool) -> list[Scored]:
    """The best `count` of all measured so far: by quality alone, or front by front, the last one thinned out so that
    its members lie far apart.
    """
    if not by_size:
        return sorted(scored, key=lambda each: -each.quality)[:count]
    chosen = list[Scored]()
    for front in fronts(scored):
        room = count - len(chosen)
        if len(front) >= room:
            apart = crowding(front)
            return chosen + [front[n] for n in sorted(range(len(front)), key=lambda n: -apart[n])[:room]]
        chosen += front
    return chosen


def fronts(scored: Sequence[Scored]) -> list[list[Scored]]:
    """Those that none beats, from the smallest on; then those that only these beat; and so on."""
    left = sorted(scored, key=lambda each: (each.size, -each.quality))
    found = list[list[Scored]]()
    while left:
        front, rest, best = list[Scored](), list[Scored](), -np.inf
        for each in left:
            equal = bool(front) and (each.size, each.quality) == (front[-1].size, front[-1].quality)
            (front if each.quality > best or equal else rest).append(each)
            best = max(best, each.quality)
        found.append(front)
        left = rest
    return found


def crowding(front: Sequence[Scored]) -> list[float]:
    """How far the neighbours of each member are, in sizes and qualities scaled to the front's spread; the ends are
    infinitely lonely. `front` goes by size.
    """
    sizes, qualities = ([getattr(each, name) for each in front] for name in ("size", "quality"))
    spreads = max(sizes) - min(sizes) or 1, max(qualities) - min(qualities) or 1.0
    apart = [np.inf] * len(front)
    for n in range(1, len(front) - 1):
        apart[n] = (sizes[n + 1] - sizes[n - 1]) / spreads[0] + abs(qualities[n + 1] - qualities[n - 1]) / spreads[1]
    return apart
