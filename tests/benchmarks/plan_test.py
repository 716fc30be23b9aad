"""The calculated step against known arithmetic and against compiled programs."""

import jax
import numpy as np
import pytest

from benchmarks import plan
from benchmarks.hlo import traffic
from benchmarks.whole_step import prepared
from configs import demo


@pytest.fixture(scope="module")
def model():
    c = demo.get_config()
    return plan.count(c, c.tokenizer.vocab_size)


def test_counts_the_demo_model(model):
    """Against products written out: patches, blocks and projections of both towers."""
    c = demo.get_config()
    vision, text, temporal = c.model.vision, c.model.text, c.model.temporal_layers
    patches = (c.data.image_size // c.model.patch_size) ** 2

    def blocks(tokens, width, layers):
        return layers * (24 * tokens * width**2 + 4 * tokens**2 * width)

    pixels = 3 * c.model.patch_size**2
    frame = 2 * patches * pixels * vision.width + blocks(patches + 1, vision.width, vision.layers)
    expected = c.data.max_frames * (frame + 2 * vision.width * c.model.embed_dim)
    expected += blocks(c.data.max_tokens, text.width, text.layers)
    expected += blocks(c.data.max_frames, c.model.embed_dim, temporal)
    assert model.forward == pytest.approx(expected, rel=0.1)
    assert model.example == pytest.approx(c.data.max_frames * 3 * c.data.image_size**2, rel=0.05)
    assert model.moments == pytest.approx(2 * model.weights, rel=0.01)


@pytest.mark.parametrize(("kind", "devices", "microseconds"),
                         [("v5e", 64, 16), ("v5e", 256, 32), ("v4", 512, 24)])  # fmt: skip
def test_a_sum_over_a_torus_waits_for_its_hops(kind, devices, microseconds):
    assert plan.latency(plan.CHIPS[kind], devices) == pytest.approx(microseconds * 1e-6)


def test_ncl_costs_reads_products_and_sums():
    chip = plan.CHIPS["v5e"]
    sums = 3 * (8 * 65_536 / 1.8e11 + 32e-6)
    assert plan.ncl_extra(chip, 256, 65_536, 512, 3, stored=True) == pytest.approx(sums)
    more = plan.ncl_extra(chip, 256, 65_536, 512, 10, stored=True) - sums * 10 / 3
    assert more == pytest.approx(7 * 65_536**2 / 256 * 4 / 0.81e12)
    tiled = plan.ncl_extra(chip, 256, 65_536, 512, 10, stored=False) - sums * 10 / 3
    assert tiled == pytest.approx(9 * 2 * 65_536**2 / 256 * 512 / 197e12)


def test_placement_and_micro_batches_move_memory(model):
    def made(**changes):
        c = demo.get_config()
        c.train.batch_size = 64 * 8
        c.update_from_flattened_dict(changes)
        return plan.plan(model, c, plan.CHIPS["v5e"], 8, 0.4)

    whole, sharded, cached = made(), made(sharding="fsdp"), made(**{"batch.micro_batch_size": 16})
    part = "weights and moments"
    assert sharded.memory[part] == pytest.approx(whole.memory[part] / 8)
    assert cached.memory["activations"] == whole.memory["activations"] / 4
    assert cached.flops == pytest.approx(whole.flops * 4 / 3)


def test_one_percent_and_largest_are_where_they_say(model):
    c = demo.get_config()
    chip = plan.CHIPS["v5e"]
    each = plan.largest_clips(model, c, chip, 8)

    def used(n):
        c.train.batch_size = 8 * n
        return sum(plan.plan(model, c, chip, 8, 0.4).memory.values())

    assert used(each) <= chip.memory < used(each + 8)
    large = model._replace(forward=112e9)  # of ViT-B/32 with 12 frames
    first = plan.one_percent(large, c, chip, 8, 0.4)
    shares = []
    for c.train.batch_size in (first // 2, first):
        shares.append(plan.plan(large, c, chip, 8, 0.4).ncl_share)
    assert shares[0] <= 0.01 < shares[1]


@pytest.mark.slow
def test_recomputed_blocks_keep_less(model):
    c = demo.get_config()
    c.model.remat = True
    assert model.kept / 4 < plan.count(c, c.tokenizer.vocab_size).kept < model.kept


@pytest.mark.slow
def test_sends_what_the_compiled_step_sends(model):
    """All but the ids and counts of a batch and the metrics, which are a few bytes per pair."""
    devices = 4
    c = demo.get_config()
    mapped, state, batch = prepared(c, devices)
    hlo = mapped.run.lower(state, batch).compile().as_text()
    sent = sum(size * times for _, size, times in traffic(hlo, devices))
    expected = plan.plan(model, c, plan.CHIPS["v5e"], devices, 0.4).sent
    assert len(jax.devices()) >= devices
    np.testing.assert_allclose(sent, sum(expected.values()), rtol=0.03)
