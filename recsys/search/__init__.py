"""Searches for smaller tables: each ends in an `EmbeddingPlan`."""
