from tests.tiny_bundle import ranked_bundle, tiny_bundle  # noqa: F401
