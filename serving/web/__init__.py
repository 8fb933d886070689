"""What faces clients: routes, limits, keys, metrics. Nothing here needs TensorFlow."""
