"""Runs that start from weights: evaluated as they are, fine-tuned, and at full size."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from etils import epath
from safetensors.numpy import load_file

from configs import demo
from ncl_jax import experiment
from ncl_jax.cli import convert as command
from ncl_jax.models import weights

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[1]
REAL = os.environ.get("NCL_REAL_DATA")


def small(folder, **changes):
    """The demo with a corpus and towers that train in seconds."""
    config = demo.get_config()
    config.data.manual_dir, config.data.data_dir = str(folder / "manual"), str(folder / "tfds")
    config.data.settings.update(train=64, val=8, test=32, short_side=32)
    config.data.image_size = 32
    config.model.embed_dim = 32
    config.model.vision.width = config.model.text.width = 32
    config.train.update(batch_size=16, validate_every=1000, checkpoint_every=1000, log_every=10)
    config.data.validation_split = ""
    for name, value in changes.items():
        section, key = name.split("__")
        config[section][key] = value
    return config


def train_losses(workdir):
    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [x["train/loss"] for x in lines if "train/loss" in x]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 200 steps, and its weights as a folder of Hugging Face."""
    folder = tmp_path_factory.mktemp("trained")
    results = experiment.run(small(folder, train__steps=200), _made(folder / "run"))
    assert command.main([str(folder / "run"), str(folder / "hf")]) == 0
    return folder, results


def _made(path):
    path.mkdir()
    return epath.Path(path)


def test_weights_are_evaluated_as_they_are(trained, tmp_path):
    """The run's weights, read back with their tokenizer, retrieve as they did; nothing trains."""
    folder, results = trained
    config = small(folder, train__steps=0, init__checkpoint=str(folder / "hf"))
    again = experiment.run(config, _made(tmp_path / "zero"))
    assert again["run"]["step"] == 0
    assert again["metrics"]["text_to_video"]["plain"] == pytest.approx(
        results["metrics"]["text_to_video"]["plain"]
    )
    # What was never trained goes out as it came in.
    assert command.main([str(tmp_path / "zero"), str(tmp_path / "out")]) == 0
    for name in ("model.safetensors", weights.HEAD):
        one, other = load_file(folder / "hf" / name), load_file(tmp_path / "out" / name)
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def test_fine_tuning_beats_the_same_steps_from_scratch(trained, tmp_path):
    """On other clips, with a new head: the towers bring what they have learned."""
    folder, _ = trained
    losses = {}
    for name, checkpoint in (("scratch", ""), ("tuned", str(folder / "hf"))):
        config = small(folder, train__steps=40, init__checkpoint=checkpoint,
                       tokenizer__path=str(folder / "hf" / "tokenizer.json"))
        config.data.settings.seed = 1
        experiment.run(config, _made(tmp_path / name))
        losses[name] = train_losses(tmp_path / name)
    assert losses["tuned"][-1] < losses["scratch"][-1] - 0.1


@pytest.mark.skipif(not REAL, reason="NCL_REAL_DATA is not set: no real clips")
def test_a_step_of_full_size_on_real_clips(tmp_path):
    """ViT-B/32 from the MSVD config, two pairs, one device; random weights. Needs about 6 GB."""
    (tmp_path / "manual").mkdir()
    (tmp_path / "manual" / "msvd").symlink_to(pathlib.Path(REAL, "msvd").absolute())
    vocabulary = pathlib.Path(REAL, "tokenizer", "bpe_simple_vocab_16e6.txt.gz").absolute()
    line = [
        sys.executable, "-m", "ncl_jax.main", "--config=configs/msvd.py",
        f"--workdir={tmp_path}/run", f"--config.data.manual_dir={tmp_path}/manual",
        f"--config.data.data_dir={tmp_path}/tfds", f"--config.tokenizer.path={vocabulary}",
        "--config.init.checkpoint=", "--config.model.dtype=float32", "--config.batch.micro=1",
        "--config.data.validation_split=", "--config.train.batch_size=2",
        "--config.train.steps=1", "--config.eval.batch_size=4",
    ]  # fmt: skip
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True,
                          timeout=580, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["run"]["step"] == 1
    assert results["metrics"]["counts"]["test"]["videos"] == 2
    assert np.isfinite(train_losses(tmp_path / "run")[0])
