from tests.tiny_bundle import tiny_bundle  # noqa: F401
