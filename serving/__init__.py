"""The server of a bundle. At serve time it needs TensorFlow, ScaNN and the web stack, not the engine."""
