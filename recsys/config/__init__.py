"""YAML -> typed object: `load.load`, `digest.digest`, `json_schema.json_schema`, and `base.Config`, the base of all."""
