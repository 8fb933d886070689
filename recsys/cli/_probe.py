"""Loads the native libraries, one line of JSON after each. `doctor` runs it as a process of its own: it may crash."""

from __future__ import annotations

import json


def _say(step: str, found: str) -> None:
    print(json.dumps({"step": step, "found": found}), flush=True)


def probe() -> None:
    """TensorFlow, legacy Keras, TFRS, the devices, ScaNN."""
    import recsys  # noqa: F401  (chooses Keras 2)

    import tensorflow as tf  # isort: skip

    _say("tensorflow", tf.__version__)

    import tf_keras

    _say("keras", f"{tf_keras.__version__} ({tf.keras.Model.__module__.partition('.')[0]})")

    import tensorflow_recommenders as tfrs

    _say("tfrs", tfrs.__version__)
    devices = [device.device_type for device in tf.config.list_physical_devices()]
    _say("accelerator", ", ".join(kind for kind in devices if kind != "CPU"))

    from recsys._scann import load_scann

    load_scann()
    _say("scann", "loads beside TensorFlow")


if __name__ == "__main__":
    probe()
