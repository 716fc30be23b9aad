"""Measurements behind docs/performance.md: `python -m benchmarks [--quick] [--only B1 B4]`."""
