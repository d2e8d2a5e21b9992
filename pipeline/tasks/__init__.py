"""One file per task: its loss, its metric, its decoding."""
