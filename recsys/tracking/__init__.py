"""Where runs are kept track of, beside TensorBoard and the run's own records."""
