"""A run that starts from published weights."""

import pathlib
import shutil

import jax
import numpy as np
import pytest
from etils import epath
from flax import nnx
from safetensors.numpy import load_file

from configs import demo
from ncl_jax.cli import convert as command
from ncl_jax.data.tokenizer import Tokenizer
from ncl_jax.experiment import build, run
from ncl_jax.models import clip, convert, weights


@pytest.mark.slow
def test_weights_are_evaluated_as_they_are_and_go_out_again(tmp_path):
    """`train.steps=0`: the folder's weights and tokenizer, all metrics, an exact way back."""
    config = demo.get_config()
    config.data.manual_dir, config.data.data_dir = str(tmp_path / "m"), str(tmp_path / "t")
    config.data.settings.update(train=24, val=8, test=8, short_side=32)
    config.data.image_size, config.data.validation_split = 32, ""
    config.model.vision.width = config.model.text.width = config.model.embed_dim = 16
    config.train.batch_size, config.train.steps = jax.device_count(), 0
    config.init.checkpoint = str(tmp_path / "hf")
    tokenizer = Tokenizer.train(["a red ball moves left", "two blue cubes grow"], 600)
    sizes = build.build_sizes(config, tokenizer.vocab_size)
    _, params = clip.functional(clip.VideoClip(sizes, rngs=nnx.Rngs(7)))
    convert.save(tmp_path / "hf", convert.from_params(params), sizes, tokenizer.to_json())

    (tmp_path / "run").mkdir()
    workdir = epath.Path(tmp_path / "run")
    results = run.run_experiment(config, workdir)
    assert results["run"]["step"] == 0
    assert 0 < results["metrics"]["text_to_video"]["plain"]["MnR"] <= 8
    assert command.main([str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    for name in ("model.safetensors", weights.HEAD):
        one, other = (load_file(pathlib.Path(tmp_path, f, name)) for f in ("hf", "out"))
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)
    assert (tmp_path / "out" / weights.TOKENIZER).read_text() == tokenizer.to_json()

    shutil.rmtree(tmp_path / "hf")  # out of reach, as a hub without a network
    (workdir / "results.json").unlink()
    assert run.run_experiment(config, workdir)["metrics"] == results["metrics"]
