"""Checkpoints through Orbax, with checksums of every array."""
