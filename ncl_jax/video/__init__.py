"""Video files to frames and JPEG bytes, in processes with a time limit. No JAX here."""
