"""Every test runs on eight CPU devices, wherever it runs."""

import os
import shutil

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"

import hypothesis
import jax
import jaxtyping

from tests import typecheck

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

jax.config.update("jax_num_cpu_devices", 8)


def pytest_configure(config):
    """The quick tests ask for right answers, not fast programs: compile with little optimization.

    The slow tests run what users run, but for those that ask for `quick_compilation`.
    """
    quick = config.option.markexpr == "not slow"
    jax.config.update("jax_disable_most_optimizations", quick)
    if quick:
        typecheck.install()


@pytest.fixture
def quick_compilation():
    """For slow tests whose time is compilation and whose answers do not depend on it."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def unchecked():
    """For tests of what a function says to arguments that are not of its types."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def browser(chromium):
    """The browser of the session, with nothing in its log of what earlier tests have done."""
    chromium.get_log("browser")
    return chromium


@pytest.fixture(scope="session")
def chromium():
    """Headless Chromium, driven over loopback."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if not (driver and chromium):
        pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()
