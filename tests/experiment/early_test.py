"""What a run refuses before it builds a dataset, which may take hours."""

import jax
import numpy as np
import pytest
from etils import epath

from configs import demo
from ncl_jax.data.tokenizer import Tokenizer
from ncl_jax.experiment import build, run
from ncl_jax.models import clip, convert
from tests import tiny


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "prepare_data", lambda config: pytest.fail("a dataset is built"))
    config = demo.get_config()
    config.data.manual_dir, config.data.data_dir = str(tmp_path / "m"), str(tmp_path / "t")
    (tmp_path / "run").mkdir()
    return config


def refused(config, tmp_path, error, said):
    with pytest.raises(error, match=said):
        run.run_experiment(config, epath.Path(tmp_path / "run"))


def test_weights_that_do_not_exist(config, tmp_path):
    config.init.checkpoint = str(tmp_path / "none")
    refused(config, tmp_path, FileNotFoundError, "a file or folder of weights, or a name")


def test_a_vocabulary_that_does_not_exist(config, tmp_path):
    config.tokenizer.path = str(tmp_path / "none.json")
    refused(config, tmp_path, FileNotFoundError, "none.json")


def test_weights_without_a_vocabulary_or_of_another_size(config, tmp_path):
    arrays = convert.from_params(tiny.towers()[1])
    convert.save(tmp_path / "hf", arrays, tiny.SIZES)
    config.init.checkpoint = str(tmp_path / "hf")
    refused(config, tmp_path, ValueError, "there is no tokenizer.json, vocab.json or")
    tokenizer = Tokenizer.train(["a red ball"], 600)
    convert.save(tmp_path / "hf", arrays, tiny.SIZES, tokenizer.to_json())
    refused(config, tmp_path, ValueError, "expected|its model has|another shape")


def test_weights_that_fit_are_no_obstacle(config, tmp_path):
    tokenizer = Tokenizer.train(["a red ball"], 600)
    sizes = build.build_sizes(config, tokenizer.vocab_size)
    drawn = clip.abstract(sizes)[1]
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), drawn)
    convert.save(tmp_path / "hf", convert.from_params(params), sizes, tokenizer.to_json())
    config.init.checkpoint = str(tmp_path / "hf")
    refused(config, tmp_path, pytest.fail.Exception, "a dataset is built")
