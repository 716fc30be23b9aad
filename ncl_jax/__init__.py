"""Text-video retrieval by Normalized Contrastive Learning, in JAX and Flax."""

__version__ = "0.1.0"
