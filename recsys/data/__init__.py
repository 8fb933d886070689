"""From raw events to batches: sources, prepare, the reader, public data sets, the simulator."""
