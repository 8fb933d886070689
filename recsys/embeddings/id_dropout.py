"""Ids that training forgets, so that a model knows what to do without them."""

from __future__ import annotations

from recsys._compat import tf
from recsys.data.dataset import MISSING, CategoricalInfo
from recsys.embeddings.draws import step_seed
from recsys.embeddings.seeds import seed_for


class IdDropout:
    """In training a share of a feature's values becomes unknown, as values outside the vocabulary are.

    So the row of unknown values is trained (a vocabulary leaves it nearly untouched), and whatever else is known of a
    thing learns to stand in for its id: DropoutNet (Volkovs et al., NeurIPS 2017), with a learned vector in place of
    zeros. What served requests say of values without training events is encoded the same way, so nothing changes there.

    Args:
        name: of the feature.
        rate: the share.
        info: of the vocabulary.
        seed: the experiment's seed.
        step: of the training, which the draws depend on.
    """

    def __init__(self, name: str, rate: float, info: CategoricalInfo, seed: int, step: tf.Variable) -> None:
        self._rate, self._unknown, self._step = rate, info.oov_rows, step
        self._salts = [seed_for(seed, "id_dropout", name, what) for what in ("which", "to")]

    def __call__(self, ids: tf.Tensor) -> tf.Tensor:
        """Ids of any shape, each that is not missing replaced with probability `rate` by an unknown value's, any of
        them.
        """
        which, to = (step_seed(self._step, salt) for salt in self._salts)
        dropped = tf.random.stateless_uniform(tf.shape(ids), which) < self._rate
        unknown = tf.random.stateless_uniform(tf.shape(ids), to, 1, 1 + self._unknown, tf.int32)
        return tf.where(dropped & tf.not_equal(ids, MISSING), tf.cast(unknown, ids.dtype), ids)
