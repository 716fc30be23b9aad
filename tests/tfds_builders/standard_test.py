"""The builders as TFDS itself tests and builds them; needs TensorFlow, so it runs apart."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
CASES = {
    "MsvdTest": ("msvd", None, {"train": 2, "val": 1, "test": 2}),
    "Msrvtt9kTest": ("msrvtt", "9k", {"train": 4, "test": 2}),
    "Msrvtt7kTest": ("msrvtt", "7k", {"train": 3, "test": 2}),
    "MsrvttFullTest": ("msrvtt", "full", {"train": 2, "val": 1, "test": 3}),
    "ActivitynetTest": ("activitynet", "paragraph", {"train": 2, "test": 1}),
    "ActivitynetVal2Test": ("activitynet", "val_2", {"train": 2, "test": 1}),
}
# What a process with TensorFlow runs: one DatasetBuilderTestCase per row of CASES.
CODE = """
import importlib
import pathlib
import sys
import tensorflow_datasets as tfds
from tests.tfds_builders import standard_test

for name, (folder, config, splits) in standard_test.CASES.items():
    module = importlib.import_module(f"tfds_builders.{folder}.{folder}_dataset_builder")
    data = standard_test.ROOT / "tfds_builders" / folder / "dummy_data"
    members = {
        "DATASET_CLASS": module.Builder,
        "SPLITS": splits,
        "EXAMPLE_DIR": str(data),
        "BUILDER_CONFIG_NAMES_TO_TEST": [config] if config else None,
    }
    globals()[name] = type(name, (tfds.testing.DatasetBuilderTestCase,), members)
tfds.testing.test_main()
"""


def _has(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)


@pytest.mark.slow
@pytest.mark.skipif(not _has("tensorflow", "dill"), reason="needs tensorflow-cpu and dill")
def test_the_test_case_of_tfds() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, env=env, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Ran {6 * len(CASES)} tests" in done.stderr
