"""`import recsys` chooses Keras 2, or says why it cannot."""

from __future__ import annotations

import os
import subprocess
import sys


def run(code: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_importing_recsys_sets_the_flag_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, os, recsys; assert os.environ['TF_USE_LEGACY_KERAS'] == '1'; "
        "heavy = {'tensorflow', 'tf_keras', 'pydantic', 'numpy', 'pandas', 'pyarrow', 'ibis'} & set(sys.modules); "
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    assert run(code).stderr == ""


def test_tensorflow_may_be_loaded_first_as_long_as_keras_is_not() -> None:
    code = "import tensorflow as tf, recsys; print(tf.keras.Model.__module__.partition('.')[0])"
    assert run(code).stdout == "tf_keras\n"


def test_keras_3_resolved_before_is_refused_with_a_cure() -> None:
    found = run("import tensorflow as tf; tf.keras.Model; import recsys")
    last = found.stderr.strip().splitlines()[-1]
    assert found.returncode == 1
    assert last.startswith("recsys.errors.InstallError: import recsys: tf.keras has already resolved to Keras 3")
    assert "import recsys before anything that uses tf.keras, or run with TF_USE_LEGACY_KERAS=1" in last


def test_libraries_that_do_not_load_together_are_named_with_a_cure() -> None:
    found = run("import sys; sys.modules['tensorflow_recommenders'] = None; import recsys._compat")
    last = found.stderr.strip().splitlines()[-1]
    assert found.returncode == 1
    assert last.startswith(
        "recsys.errors.InstallError: TensorFlow, Keras 2 and TFRS: cannot be loaded together (import of"
    )
    assert last.endswith("expected versions that fit each other; recsys doctor")
