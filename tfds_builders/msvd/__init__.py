"""MSVD as a TFDS builder package."""
