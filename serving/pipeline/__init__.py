"""From a request to an answer: features, retrieval, ranking, rules."""
