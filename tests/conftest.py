"""Every test runs on eight CPU devices, wherever it runs."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_num_cpu_devices", 8)


def pytest_configure(config):
    """The quick tests ask for right answers, not fast programs: compile with little optimization.

    The slow tests run what users run.
    """
    quick = config.option.markexpr == "not slow"
    jax.config.update("jax_disable_most_optimizations", quick)
