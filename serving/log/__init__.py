"""Answers and feedback, kept as Parquet."""
