"""Which distributions fit each other. Imports none of them, so that it can speak when they are broken."""

from __future__ import annotations

import importlib.metadata

REQUIRED = {"tensorflow": "2.20.", "tf-keras": "2.20.", "tensorflow-recommenders": "0.7.7", "scann": "1.4.2"}
"""Distributions and the version prefixes known to work together: ScaNN's ops are built against one TensorFlow."""


def installed(distribution: str) -> str | None:
    """The installed version of a distribution; None where there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def version_problems() -> list[str]:
    """One line for each distribution whose installed version is not the required one."""
    lines = []
    for name, prefix in REQUIRED.items():
        found = installed(name) or "nothing"
        if not found.startswith(prefix):
            wanted = f"{prefix}*" if prefix.endswith(".") else prefix
            lines.append(f"{name}: found {found}; expected {wanted}; pip install '{name}=={wanted}'")
    return lines
