"""The catalogue to look at: items, and a map of them."""
