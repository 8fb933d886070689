"""What a feature is: `recsys.schema.config`."""
