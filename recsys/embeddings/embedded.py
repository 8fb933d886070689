"""What a batch's features became."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from recsys._compat import tf


@dataclass(frozen=True)
class Padded:
    """A sequence that keeps its values."""

    values: tf.Tensor
    """[B, T, D], oldest first; of no meaning where the mask is false."""
    mask: tf.Tensor
    """[B, T] bool: true for a value, false for padding."""


@dataclass(frozen=True)
class Group:
    """Vectors of one width that lie side by side in memory, as one lookup left them."""

    names: tuple[str, ...]
    values: tf.Tensor
    """[B, F, D], one of `names` at each F."""

    def only(self, names: Container[str]) -> list[Group]:
        """The group without features of other names: itself if there are none, nothing if there are only those."""
        kept = [place for place, name in enumerate(self.names) if name in names]
        if len(kept) == len(self.names):
            return [self]
        return [Group(tuple(self.names[place] for place in kept), tf.gather(self.values, kept, axis=1))] if kept else []


@dataclass(frozen=True)
class Embedded:
    """Vectors and sequences by feature, in views that cost nothing until they are asked for.

    A view copies as little as it can: features that one lookup left side by side stay so.
    """

    order: Sequence[str]
    """Names of the features that became vectors, in the schema's order."""
    groups: Sequence[Group]
    sequences: dict[str, Padded] = field(default_factory=dict)
    """The features with `pooling: none`."""
    attention: Embedded | None = None
    """What the features with an `attention_table` read there: vectors of the targets, sequences of the histories. None
    where no feature in the batch has one.
    """

    def concat(self) -> tf.Tensor:
        """[B, ΣD] all vectors side by side, in the schema's order."""
        runs = [tf.reshape(run, [-1, run.shape[1] * run.shape[2]]) for run in self._runs()]
        return runs[0] if len(runs) == 1 else tf.concat(runs, 1)

    def fields(self) -> tf.Tensor:
        """[B, F, D] all vectors as a stack, in the schema's order.

        Raises:
            ValueError: the widths differ.
        """
        widths = dict(self.layout())
        if len(set(widths.values())) > 1:
            found = ", ".join(f"{name} {width}" for name, width in widths.items())
            raise ValueError(f"a stack of field vectors needs one width, and these differ: {found}")
        runs = self._runs()
        return runs[0] if len(runs) == 1 else tf.concat(runs, 1)

    def vectors(self) -> dict[str, tf.Tensor]:
        """[B, D] by feature, in the schema's order."""
        found = {
            name: vector
            for group in self.groups
            for name, vector in zip(group.names, tf.unstack(group.values, axis=1), strict=True)
        }
        return {name: found[name] for name in self.order}

    def layout(self) -> list[tuple[str, int]]:
        """(name, width) of each vector, in the order of `concat`."""
        widths = {name: int(group.values.shape[2]) for group in self.groups for name in group.names}
        return [(name, widths[name]) for name in self.order]

    def gathered(self, row: tf.Tensor) -> Embedded:
        """The rows [K] of all vectors and sequences, in that order."""
        groups = [Group(group.names, tf.gather(group.values, row)) for group in self.groups]
        sequences = {
            name: Padded(tf.gather(padded.values, row), tf.gather(padded.mask, row))
            for name, padded in self.sequences.items()
        }
        attention = None if self.attention is None else self.attention.gathered(row)
        return Embedded(self.order, groups, sequences, attention)

    def _runs(self) -> list[tf.Tensor]:
        """Slices [B, F, D] of the groups, as long as the order allows, that make up the order."""
        place = {name: (g, f) for g, group in enumerate(self.groups) for f, name in enumerate(group.names)}
        runs: list[list[int]] = []  # group, first field, past the last field
        for name in self.order:
            g, f = place[name]
            if runs and runs[-1][0] == g and runs[-1][2] == f:
                runs[-1][2] += 1
            else:
                runs.append([g, f, f + 1])
        return [
            self.groups[g].values
            if (first, stop) == (0, len(self.groups[g].names))
            else self.groups[g].values[:, first:stop]
            for g, first, stop in runs
        ]
