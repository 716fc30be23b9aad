"""ncl_jax inside other projects' benchmarks: `mteb` and `sentence_transformers`.

Each module needs the package that it is named after, and only that module does.
"""
