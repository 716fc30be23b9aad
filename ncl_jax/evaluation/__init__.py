"""Embeddings of a split, their scores, and every metric of both directions."""
