"""Which distributions fit each other. Imports none of them, so that it can speak when they are broken."""

from __future__ import annotations

import importlib.metadata

REQUIRED = {"tensorflow": "2.20.", "tf-keras": "2.20.", "tensorflow-recommenders": "0.7.7", "scann": "1.4.2"}
"""Distributions and the version prefixes known to work together: ScaNN's ops are built against one TensorFlow."""


def version_problems() -> list[str]:
    """One line for each distribution whose installed version is not the required one."""
    lines = []
    for name, prefix in REQUIRED.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "nothing"
        if not found.startswith(prefix):
            wanted = f"{prefix}*" if prefix.endswith(".") else prefix
            lines.append(f"{name}: found {found}; expected {wanted}; pip install '{name}=={wanted}'")
    return lines
