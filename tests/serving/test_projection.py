"""Vectors on a plane: planted groups stay together, and the same vectors stand in the same places."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.catalogue import projection
from serving.catalogue.projection import Projection


def planted(groups: int, each: int, width: int = 32) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors about so many random directions, and whose they are."""
    random = np.random.default_rng(0)
    of = np.repeat(np.arange(groups), each)
    vectors = random.normal(size=(groups, width))[of] + 0.8 * random.normal(size=(len(of), width))
    return vectors.astype(np.float32), of


def purity(places: NDArray[np.floating], of: NDArray[np.int64]) -> float:
    """The share of points whose nearest neighbour on the plane is of their group."""
    apart = ((places[:, np.newaxis] - places) ** 2).sum(axis=2)
    np.fill_diagonal(apart, np.inf)
    return float((of[apart.argmin(axis=1)] == of).mean())


@pytest.fixture
def few_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "LANDMARKS", 200)


def test_groups_stay_together_which_two_principal_components_mix() -> None:
    vectors, of = planted(groups=12, each=25)
    places = Projection.of(vectors).place(vectors)
    principal = projection._principal(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    assert purity(places, of) > 0.99
    assert purity(np.stack([principal.real, principal.imag], axis=1), of) < 0.8


@pytest.mark.usefixtures("few_landmarks")
def test_vectors_that_are_no_landmarks_find_their_groups() -> None:
    vectors, of = planted(groups=8, each=100)
    found = Projection.of(vectors)
    places = found.place(vectors)
    assert len(found.landmarks) == 200
    assert purity(places, of) > 0.99
    later = planted(groups=8, each=100)[0][::7]
    assert purity(np.concatenate([found.place(later), places]), np.concatenate([of[::7], of])) > 0.99


@pytest.mark.usefixtures("few_landmarks")
def test_places_fill_the_picture_and_are_always_the_same() -> None:
    vectors, _ = planted(groups=4, each=75)
    places = Projection.of(vectors).place(vectors)
    assert places.dtype == np.float32
    assert places.shape == (300, 2)
    assert np.abs(places).max() <= 1
    assert np.ptp(places[:, 0]) > 1.9
    assert np.ptp(places[:, 0]) > np.ptp(places[:, 1]), "wider than high"
    np.testing.assert_array_equal(places, Projection.of(vectors).place(vectors))


def test_length_does_not_count() -> None:
    vectors, _ = planted(groups=3, each=20)
    longer = vectors * np.linspace(1, 2, len(vectors), dtype=np.float32)[:, np.newaxis]
    near, _ = projection._nearest(projection._units(longer), projection._units(vectors), 1)
    np.testing.assert_array_equal(near[:, 0], np.arange(60))


def test_a_few_vectors_are_shown_by_their_principal_components() -> None:
    vectors = np.array([[3, 0, 0], [2, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    places = Projection.of(vectors).place(vectors)
    np.testing.assert_allclose(places[0], places[1], atol=1e-6, err_msg="the same direction")
    apart = [np.linalg.norm(places[a] - places[b]) for a, b in ((0, 2), (0, 3), (2, 3))]
    assert min(apart) > 0.5


@pytest.mark.parametrize("vectors", [np.zeros((1, 4)), np.ones((40, 1)), np.zeros((40, 4)), np.ones((2, 3))])
def test_vectors_without_any_structure_have_places_too(vectors: NDArray[np.floating]) -> None:
    vectors = vectors.astype(np.float32)
    places = Projection.of(vectors).place(vectors)
    assert places.shape == (len(vectors), 2)
    assert np.isfinite(places).all()


def test_the_gradients_are_those_of_the_objective() -> None:
    """By finite differences along x, of pairs that are far enough apart for no limit."""
    x, step = np.array([0.7, 1.5, 4.0]), 1e-4

    def kernel(apart: NDArray[np.floating]) -> NDArray[np.floating]:
        return 1 / (1 + apart**2)

    pull = (np.log(kernel(x + step)) - np.log(kernel(x - step))) / (2 * step)
    push = (np.log(1 - kernel(x + step)) - np.log(1 - kernel(x - step))) / (2 * step)
    pairs = x.astype(np.complex64)
    np.testing.assert_allclose(projection._attraction(pairs).real, -pull, rtol=1e-4)
    np.testing.assert_allclose(projection._repulsion(pairs).real, push, rtol=1e-4)


def test_neighbours_are_others_even_where_many_are_the_same() -> None:
    units = projection._units(np.repeat(np.eye(2, dtype=np.float32), [30, 3], axis=0))
    near = projection._neighbours(units, 2)
    assert near.shape == (33, 2)
    assert (near[:30] < 30).all()
    assert [sorted(row) for row in near[30:].tolist()] == [[31, 32], [30, 32], [30, 31]]
