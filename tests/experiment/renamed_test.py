"""Former words of the config."""

import ml_collections
import pytest

from configs import demo
from ncl_jax.experiment import build, renamed


def test_every_new_name_is_a_key_of_the_config():
    config = demo.get_config()
    for old, new in renamed.KEYS.items():
        assert renamed._get(config, new) is not None
        assert renamed._get(config, old) is None
    for key in renamed.VALUES:
        assert renamed._get(config, key) is not None


@pytest.mark.parametrize("old", renamed.KEYS)
def test_a_former_key_in_a_config_file_is_refused_by_its_new_name(old):
    """An unlocked config takes any key, and this one would do nothing."""
    config = demo.get_config()
    with config.unlocked():
        put(config, old)
    said = rf"config\.{old} is now called config\.{renamed.KEYS[old]}"
    with pytest.raises(ValueError, match=said):
        build.validate_config(config)


def put(config, key):
    *path, name = key.split(".")
    for part in path:
        config = config[part]
    config[name] = 1


def test_a_run_of_any_age_reads_in_the_present_words():
    now = demo.get_config().to_dict()
    before = ml_collections.ConfigDict(now).to_dict()
    for old, new in renamed.KEYS.items():
        *path, name = old.split(".")
        section = before
        for part in path:
            section = section[part]
        section[name] = section.pop(new.rpartition(".")[2])
    assert before != now
    kept = ml_collections.ConfigDict(before).to_dict()
    assert renamed.updated(before) == now
    assert before == kept
    assert renamed.updated(now) == now
