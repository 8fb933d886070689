"""Vectors on a plane, for people to look at: items that are near each other by angle stand near each other.

Two principal components show little of an embedding of 50 dimensions: groups that differ elsewhere lie over each other.
Here neighbours attract and random pairs repel each other under the kernel 1 / (1 + distance²): t-SNE's objective by
negative sampling, on a graph of nearest neighbours without weights (Damrich, Böhm, Hamprecht and Kobak, "From t-SNE to
UMAP with contrastive learning", ICLR 2023). It is done with some thousands of landmarks; every other vector finds its
place among those that it is nearest to, and so does one that comes later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Places = NDArray[np.complex64]
"""x + iy of each point: one number, so that what two points are apart is one subtraction."""
LANDMARKS = 4_000
NEIGHBOURS, NEGATIVES = 15, 5
"""Neighbours that attract a landmark, and random ones that repel it, in each step."""
STEPS, PLACING_STEPS = 500, 30
AMONG = 5
"""Landmarks that attract a vector which is none."""
FEWEST = 16
"""Of fewer vectors each is a neighbour of all: their two principal components are shown."""
NEAREST = 0.5
"""Points nearer than this repel each other no more than at this distance, or they would throw each other far out."""
SAME = 1 - 1e-6
"""The cosine from which on a vector is the landmark itself."""
BLOCK = 2_048


@dataclass(frozen=True)
class Projection:
    """Where the landmarks stand, and with that any vector."""

    landmarks: Floats
    """[L, d] of length 1."""
    places: Places
    """[L], as far apart as the kernel has them."""

    @classmethod
    def of(cls, vectors: Floats, seed: int = 0) -> Self:
        """The projection of vectors [N, d], which gives the same vectors the same places."""
        units, random = _units(vectors), np.random.default_rng(seed)
        if len(units) > LANDMARKS:
            units = units[np.sort(random.choice(len(units), LANDMARKS, replace=False))]
        places = _principal(units)
        if len(units) >= FEWEST:
            places = _level(_spread(places, _neighbours(units, NEIGHBOURS), random))
        return cls(units, places)

    def place(self, vectors: Floats, seed: int = 0) -> Floats:
        """[N, 2] the places of vectors [N, d] in the picture, x and y from -1 to 1."""
        near, cosines = _nearest(_units(vectors), self.landmarks, min(AMONG, len(self.landmarks)))
        places = self.places[near[:, 0]]
        others = cosines[:, 0] < SAME
        places[others] = self._settled(near[others], np.random.default_rng(seed))
        return self._framed(places)

    def _settled(self, near: Ids, random: np.random.Generator) -> Places:
        """[N] places of vectors whose nearest landmarks are [N, AMONG]."""
        places, attractors = self.places[near].mean(axis=1), self.places[near]
        for step in range(PLACING_STEPS):
            pull = _attraction(places[:, np.newaxis] - attractors).mean(axis=1)
            repellents = self.places[random.integers(len(self.places), size=(len(places), NEGATIVES))]
            push = _repulsion(places[:, np.newaxis] - repellents).sum(axis=1)
            places = places + _rate(step, PLACING_STEPS) * (push - pull)
        return places

    def _framed(self, places: Places) -> Floats:
        x, y = self.places.real, self.places.imag
        centre = np.array([x.min() + x.max(), y.min() + y.max()]) / 2
        reach = max(np.ptp(x), np.ptp(y)) / 2 or 1.0
        return np.clip((np.stack([places.real, places.imag], axis=1) - centre) / reach, -1, 1).astype(np.float32)


def _units(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def _principal(units: Floats) -> Places:
    """[L] the two principal components, each with deviation 1, if there is any."""
    centred = units - units.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :2]
    components = np.zeros((len(units), 2), np.float32)
    components[:, : axes.shape[1]] = centred @ axes
    deviation = components.std(axis=0)
    components /= np.where(deviation > 1e-6, deviation, 1)
    return _complex(components[:, 0], components[:, 1])


def _spread(places: Places, neighbours: Ids, random: np.random.Generator) -> Places:
    """[L] places in which each has its `neighbours` [L, K] about it, and nobody else."""
    count, width = neighbours.shape
    heads, tails = np.repeat(np.arange(count), width), neighbours.ravel()
    degree = width + np.bincount(tails, minlength=count)
    for step in range(STEPS):
        pull = _attraction(places[heads] - places[tails])
        onto_tails = _complex(np.bincount(tails, pull.real, count), np.bincount(tails, pull.imag, count))
        pulled = pull.reshape(count, width).sum(axis=1) - onto_tails
        push = _repulsion(places[:, np.newaxis] - places[random.integers(count, size=(count, NEGATIVES))]).sum(axis=1)
        places = (places + _rate(step, STEPS) * (push - pulled / degree)).astype(np.complex64)
    return places


def _level(places: Places) -> Places:
    """Turned so that they reach farthest from left to right."""
    centred = places - places.mean()
    return np.asarray(centred * np.exp(-0.5j * np.angle((centred**2).mean())), dtype=np.complex64)


def _complex(x: NDArray[Any], y: NDArray[Any]) -> Places:
    return np.asarray(x + 1j * y, dtype=np.complex64)


def _rate(step: int, steps: int) -> np.float32:
    return np.float32(1 - step / steps)


def _attraction(apart: Places) -> Places:
    """The gradient of -log(1 / (1 + distance²)) for pairs that stand `apart`."""
    return 2 * apart / (1 + _squared(apart))


def _repulsion(apart: Places) -> Places:
    """The gradient of -log(1 - 1 / (1 + distance²)), turned about."""
    squared = _squared(apart)
    return 2 * apart / (np.maximum(squared, NEAREST**2) * (1 + squared))


def _squared(apart: Places) -> Floats:
    return apart.real**2 + apart.imag**2


def _neighbours(units: Floats, count: int) -> Ids:
    """[L, K] the nearest others."""
    near, _ = _nearest(units, units, count + 1)
    own = near == np.arange(len(units))[:, np.newaxis]
    own[~own.any(axis=1), -1] = True  # of more than K that are the same: any K of them
    return near[~own].reshape(len(units), count)


def _nearest(units: Floats, among: Floats, count: int) -> tuple[Ids, Floats]:
    """[N, K] the nearest of `among`, the nearest first, and their cosines."""
    found = [_nearest_of_block(units[start : start + BLOCK] @ among.T, count) for start in range(0, len(units), BLOCK)]
    return np.concatenate([ids for ids, _ in found]), np.concatenate([cosines for _, cosines in found])


def _nearest_of_block(cosines: Floats, count: int) -> tuple[Ids, Floats]:
    best = np.argpartition(cosines, -count, axis=1)[:, -count:]
    order = np.argsort(-np.take_along_axis(cosines, best, 1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, 1)
    return best, np.take_along_axis(cosines, best, 1)
