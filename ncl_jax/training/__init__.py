"""The training step, the loop, and what belongs to both: optimizer, run state, logs."""
