"""TFDS builders of the text-video datasets, and `prepare`, their ordinary way of use."""

from tfds_builders.frame_store import BuildOptions
from tfds_builders.preparation import prepare, read_layout, read_metadata, require_files

__all__ = ["BuildOptions", "prepare", "read_layout", "read_metadata", "require_files"]
