"""Published weights: names, shapes, tables, hostile and damaged files, round trips."""

import dataclasses
import json
import os
import pickle
import tracemalloc
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ncl_jax.cli import convert as command
from ncl_jax.models import clip, convert, naming, temporal, torch_file, weights
from tests import tiny

PLAIN = dataclasses.replace(tiny.SIZES, temporal="meanP")
TINY_PARAMS = tiny.towers()[1]


def arrays_of(config, seed=0):
    """Random weights by Hugging Face's names, in torch's layouts."""
    rng = np.random.default_rng(seed)
    _, like = clip.abstract(config)
    drawn = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), like)
    return convert.from_params(drawn)


def resblocks(arrays, tower, stem):
    """The blocks of one tower under OpenAI's names: q, k and v in one array."""
    parts = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
             "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj"}  # fmt: skip
    out, prefix = {}, f"{tower}.encoder.layers."
    for name in arrays:
        number, _, part = name.removeprefix(prefix).partition(".")
        block, leaf = f"{stem}.resblocks.{number}", part.rpartition(".")[2]
        if not name.startswith(prefix) or part.startswith(("self_attn.k", "self_attn.v")):
            continue
        if part.startswith("self_attn.q"):
            three = [arrays[name.replace("q_proj", f"{x}_proj")] for x in "qkv"]
            out[f"{block}.attn.in_proj_{leaf}"] = np.concatenate(three)
        else:
            out[f"{block}.{parts[part.rpartition('.')[0]]}.{leaf}"] = arrays[name]
    return out


def openai(arrays):
    """Both towers under OpenAI's names, made independently of `naming`."""
    out = resblocks(arrays, "vision_model", "visual.transformer")
    out |= resblocks(arrays, "text_model", "transformer")
    out["visual.proj"] = arrays["visual_projection.weight"].T
    out["text_projection"] = arrays["text_projection.weight"].T
    vision, text = "vision_model.", "text_model."
    for theirs, ours in {
        "visual.class_embedding": vision + "embeddings.class_embedding",
        "visual.conv1.weight": vision + "embeddings.patch_embedding.weight",
        "visual.positional_embedding": vision + "embeddings.position_embedding.weight",
        "visual.ln_pre.weight": vision + "pre_layrnorm.weight",
        "visual.ln_pre.bias": vision + "pre_layrnorm.bias",
        "visual.ln_post.weight": vision + "post_layernorm.weight",
        "visual.ln_post.bias": vision + "post_layernorm.bias",
        "token_embedding.weight": text + "embeddings.token_embedding.weight",
        "positional_embedding": text + "embeddings.position_embedding.weight",
        "ln_final.weight": text + "final_layer_norm.weight",
        "ln_final.bias": text + "final_layer_norm.bias",
        "logit_scale": "logit_scale",
    }.items():
        out[theirs] = arrays[ours]
    return out


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].shape == other[name].shape, name
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def equal_trees(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def published(arrays):
    return weights.Published(arrays, "test")


# --- naming

@pytest.mark.parametrize("prefix", ["", "module.", "clip.", "module.clip."])
def test_openai_names_become_hugging_face_names(prefix):
    config = dataclasses.replace(PLAIN, text=clip.TowerConfig(16, 2, 2))
    arrays = arrays_of(config)
    theirs = {prefix + n: a for n, a in openai(arrays).items()}
    buffers = {f"{prefix}{n}": np.array(7) for n in ("input_resolution", "context_length")}
    same(naming.to_hf(theirs | buffers, "test"), arrays)


def test_open_clip_s_text_tower_of_its_own():
    arrays = arrays_of(PLAIN)
    theirs = {n if n.startswith("visual.") or n == "logit_scale" else f"text.{n}": a
              for n, a in openai(arrays).items()}  # fmt: skip
    same(naming.to_hf(theirs | {"text.attn_mask": np.zeros((8, 8))}, "test"), arrays)


def test_unknown_names_are_listed():
    theirs = openai(arrays_of(PLAIN))
    with pytest.raises(ValueError, match=r"unknown weights: visual\.ln_mid\.weight"):
        naming.to_hf(theirs | {"visual.ln_mid.weight": np.zeros(2)}, "test")
    with pytest.raises(ValueError, match=r"names of a CLIP ViT .* got a, b"):
        naming.to_hf({"a": np.zeros(1), "b": np.zeros(1)}, "test")


def clip4clip(config, arrays):
    """A CLIP4Clip state dict with its head, by its names and layouts."""
    out = {f"clip.{n}": a for n, a in openai(arrays).items()}
    stem = {"seqTransf": "transformerClip", "tightTransf": "cross.transformer"}
    if config.temporal in stem:
        out |= resblocks(arrays, "temporal", stem[config.temporal])
    table = {"seqTransf": "frame_position_embeddings.weight",
             "tightTransf": "cross.embeddings.position_embeddings.weight"}  # fmt: skip
    for theirs, ours in {
        table.get(config.temporal): "position_embedding.weight",
        "lstm_visual.weight_ih_l0": "input_proj.weight",
        "lstm_visual.bias_ih_l0": "input_proj.bias",
        "lstm_visual.weight_hh_l0": "hidden_proj.weight",
        "lstm_visual.bias_hh_l0": "hidden_proj.bias",
        "cross.pooler.ln_pool.weight": "pool_norm.weight",
        "cross.pooler.ln_pool.bias": "pool_norm.bias",
        "cross.pooler.dense.weight": "pool_proj.weight",
        "cross.pooler.dense.bias": "pool_proj.bias",
        "similarity_dense.weight": "similarity.weight",
        "similarity_dense.bias": "similarity.bias",
    }.items():
        if f"temporal.{ours}" in arrays:
            out[theirs] = arrays[f"temporal.{ours}"]
    if config.temporal == "seqLSTM":  # kept there, never read
        out["frame_position_embeddings.weight"] = np.zeros((77, config.embed_dim))
    return out


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("head", list(temporal.TEMPORAL_HEADS))
def test_clip4clip_checkpoints_bring_their_heads(head, frames):
    config = dataclasses.replace(tiny.SIZES, temporal=head, patch_frames=frames)
    arrays = arrays_of(config)
    theirs = clip4clip(config, arrays)
    if frames == 3:
        theirs["clip.visual.conv2.weight"] = theirs["clip.visual.conv1.weight"]
        theirs["clip.visual.conv1.weight"] = np.zeros((16, 3, 8, 8))  # never read there
    same(naming.to_hf(theirs, "test"), arrays)


# --- parameters

@pytest.mark.parametrize("head", list(temporal.TEMPORAL_HEADS))
def test_there_and_back_is_exact(head):
    config = dataclasses.replace(tiny.SIZES, temporal=head, patch_frames=3)
    arrays = arrays_of(config)
    params = convert.to_params(published(arrays), config)
    same(convert.from_params(params), arrays)
    kernel = params["visual_projection"]["kernel"]
    np.testing.assert_array_equal(kernel, arrays["visual_projection.weight"].T)


def test_every_name_needs_its_partner(unchecked):
    arrays = arrays_of(PLAIN)
    short = {n: a for n, a in arrays.items() if "fc1" not in n}
    extra = arrays | {"text_model.gate.weight": np.zeros(2)}
    with pytest.raises(ValueError, match=r"missing in the checkpoint: text_model\.encoder\.lay"):
        convert.to_params(published(short), PLAIN)
    with pytest.raises(ValueError, match=r"missing in the model of this config: text_model\.gate"):
        convert.to_params(published(extra), PLAIN)
    with pytest.raises(ValueError, match=r"text_projection.weight \(16, 16\) for \(16, 8\)"):
        convert.to_params(published(arrays), dataclasses.replace(PLAIN, embed_dim=8))
    with pytest.raises(ValueError, match="has activation gelu, the config quick_gelu"):
        convert.to_params(weights.Published(arrays, "test", "gelu"), PLAIN)
    with pytest.raises(ValueError, match=r"has heads .* \(1, 2\), the config \(2, 2\)"):
        convert.to_params(weights.Published(arrays, "test", None, (1, 2)), PLAIN)
    with pytest.raises(ValueError, match=r"init\.positions: expected one of exact, cut"):
        convert.to_params(published(arrays), PLAIN, positions="resize")


def test_position_tables_change_only_when_asked():
    arrays = arrays_of(PLAIN)
    table = arrays["text_model.embeddings.position_embedding.weight"]
    short = dataclasses.replace(PLAIN, context_length=5)
    with pytest.raises(ValueError, match=r"expected 5 rows in .*, got 8; set .* cut or inter"):
        convert.to_params(published(arrays), short)
    cut = convert.to_params(published(arrays), short, positions="cut")
    got = cut["text_model"]["embeddings"]["position_embedding"]["embedding"]
    np.testing.assert_array_equal(got, table[:5])
    wide = dataclasses.replace(PLAIN, image_size=32)
    with pytest.raises(ValueError, match=r"expected 17 rows .*, got 5; set .* to interpolate"):
        convert.to_params(published(arrays), wide, positions="cut")
    grown = convert.to_params(published(arrays), wide, positions="interpolate")
    got = np.asarray(grown["vision_model"]["embeddings"]["position_embedding"]["embedding"])
    seen = arrays["vision_model.embeddings.position_embedding.weight"]
    np.testing.assert_array_equal(got[0], seen[0])
    want = np.asarray(jax.image.resize(seen[1:].reshape(2, 2, 16), (4, 4, 16), "cubic"))
    np.testing.assert_allclose(got[1:], want.reshape(16, 16), atol=1e-5)


@pytest.mark.slow
def test_new_heads_start_from_the_text_tower():
    config = dataclasses.replace(tiny.SIZES, text=clip.TowerConfig(16, 2, 2), max_frames=4)
    arrays = arrays_of(dataclasses.replace(config, temporal="meanP"))
    text = "text_model.encoder.layers.0.mlp.fc1.weight"
    for head, rows in (("seqTransf", 4), ("tightTransf", 5)):
        made = convert.from_params(
            convert.to_params(published(arrays), dataclasses.replace(config, temporal=head))
        )
        np.testing.assert_array_equal(made["temporal.encoder.layers.0.mlp.fc1.weight"],
                                      arrays[text])
        np.testing.assert_array_equal(
            made["temporal.position_embedding.weight"],
            arrays["text_model.embeddings.position_embedding.weight"][:rows],
        )
    random = convert.to_params(published(arrays), config, head="random", seed=3)
    drawn = random["temporal"]["encoder"]["layers"][0]["mlp"]["fc1"]["kernel"]
    assert not np.array_equal(drawn, arrays[text].T)
    with pytest.raises(ValueError, match=r"temporal\.encoder\.layers\.2\..* cannot start from .*"
                                         "missing.*init.head=random"):
        convert.to_params(published(arrays), dataclasses.replace(config, temporal_layers=3))


def test_flat_patches_become_deep_ones():
    arrays = arrays_of(PLAIN)
    params = convert.to_params(published(arrays), dataclasses.replace(PLAIN, patch_frames=3))
    kernel = np.asarray(params["vision_model"]["embeddings"]["patch_embedding"]["kernel"])
    flat = arrays["vision_model.embeddings.patch_embedding.weight"]
    np.testing.assert_array_equal(kernel[1], flat.transpose(2, 3, 1, 0))
    assert not kernel[[0, 2]].any()


# --- files

def test_folders_of_hugging_face(tmp_path):
    arrays = convert.from_params(TINY_PARAMS)
    convert.save(tmp_path / "one", arrays, tiny.SIZES)
    read = weights.read(str(tmp_path / "one"))
    equal_trees(convert.to_params(read, tiny.SIZES), TINY_PARAMS)
    assert (read.activation, read.heads) == ("quick_gelu", (2, 2))
    # The same in shards.
    sharded = tmp_path / "many"
    sharded.mkdir()
    names, where = sorted(arrays), {}
    for number in range(3):
        file = f"model-0000{number}-of-00003.safetensors"
        part = {n: np.ascontiguousarray(arrays[n]) for n in names[number::3]}
        save_file(part, sharded / file)
        where |= dict.fromkeys(part, file)
    index = sharded / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    equal_trees(convert.to_params(weights.read(str(sharded)), tiny.SIZES), TINY_PARAMS)
    (sharded / "model-00001-of-00003.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="the index beside it names this file, but there"):
        weights.read(str(sharded))
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(ValueError, match="files beside it"):
        weights.read(str(sharded))


def test_half_precision_files_are_read_exactly(tmp_path):
    import jax.numpy as jnp
    from safetensors.flax import save_file as save_flax

    values = np.array([1.5, -0.0078125], np.float32)
    save_flax({"b": jnp.asarray(values, jnp.bfloat16), "h": jnp.asarray(values, jnp.float16)},
              tmp_path / "x.safetensors")
    for array in weights.read_safetensors(tmp_path / "x.safetensors").values():
        np.testing.assert_array_equal(array.astype(np.float32), values)


def torch_zip(path, content, storages, root="archive"):
    """A file as torch.save lays it out: the pickle and the raw bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{root}/data.pkl", content)
        archive.writestr(f"{root}/version", "3\n")
        for key, data in storages.items():
            archive.writestr(f"{root}/data/{key}", data)


class Sly:
    """Unpickled by the plain pickle module, this makes a file."""

    def __reduce__(self):
        return os.system, ("touch ncl_was_here",)


def test_a_pickle_that_wants_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in (Sly(), {"clip.visual.proj": Sly()}, [Sly()]):
        torch_zip("sly.pt", pickle.dumps(value), {})
        with pytest.raises(ValueError, match=r"asks for (posix|nt)\.system.*nothing in it was run"):
            weights.read("sly.pt")
    # Names below torch that are no tensors are no better.
    for module, name in (("torch", "load"), ("torch.utils.data", "x"), ("builtins", "eval"),
                         ("numpy", "load"), ("torch._utils", "_rebuild_wrapper")):
        call = f"c{module}\n{name}\n(Vx\ntR.".encode()
        torch_zip("sly.pt", call, {})
        with pytest.raises(ValueError, match=f"asks for {module}.{name}"):
            weights.read("sly.pt")
    assert not (tmp_path / "ncl_was_here").exists()


def called(module, name, *arguments):
    """The opcodes of a call; arguments are opcodes too."""
    return f"c{module}\n{name}\n(".encode() + b"".join(arguments) + b"tR"


def stored(kind, key, module="torch"):
    """A storage of a torch file."""
    parts = b"Vstorage\n", f"c{module}\n{kind}\n".encode(), f"V{key}\nVcpu\nI4\n".encode()
    return b"(" + b"".join(parts) + b"tQ"


def tensor(kind="FloatStorage", key="0", size=b"(I4\nt", stride=b"(I1\nt"):
    return called("torch._utils", "_rebuild_tensor_v2", stored(kind, key), b"I0\n", size, stride,
                  b"I00\n", called("collections", "OrderedDict"))  # fmt: skip


def typed(name, key):
    """A tensor of a type that has no storage class."""
    return called("torch._utils", "_rebuild_tensor_v3", stored("UntypedStorage", key,
                  "torch.storage"), b"I0\n", b"(I4\nt", b"(I1\nt", b"I00\n",
                  called("collections", "OrderedDict"), f"ctorch\n{name}\n".encode())  # fmt: skip


def test_what_stands_beside_the_weights_is_left_out(tmp_path):
    """What `torch.load(weights_only=True)` reads too."""
    state = b"(Vname\nVa\nd"
    parts = {
        "w": tensor(),
        "parameter": called("torch._utils", "_rebuild_parameter_with_state", tensor(), b"I01\n",
                            called("collections", "OrderedDict"), state),
        "marked": called("torch._tensor", "_rebuild_from_type_v2",
                         b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nTensor\n",
                         b"(" + stored("FloatStorage", "0") + b"I0\n(I4\nt(I1\ntI00\nNt", state),
        "expanded": tensor(size=b"(I3\nI4\nt", stride=b"(I0\nI1\nt"),
        "complex": tensor("ComplexFloatStorage", "c"),
        "float8": typed("float8_e4m3fn", "8"),
        "uint16": typed("uint16", "16"),
        "uint32": typed("uint32", "32"),
        "epochs": called("collections", "Counter", b"(I7\nI1\nd"),
        "size": called("torch", "Size", b"(I4\nt"),
        "type": b"ctorch\nfloat32\n",
        "device": called("torch", "device", b"Vcuda\n"),
        "names": called("builtins", "set", b"(Va\nl"),
        "sparse": called("torch._utils", "_rebuild_sparse_tensor", b"I0\n"),
        "bytes": called("builtins", "bytearray", b"I1000000000000\n"),
        "optimizer": b"(I0\n(Vlr\nF0.1\ndd",
    }  # fmt: skip
    content = b"(" + b"".join(f"V{n}\n".encode() + code for n, code in parts.items()) + b"d."
    row = np.arange(4)
    storages = {
        "0": row.astype(np.float32), "c": row.astype(np.complex64), "16": row.astype(np.uint16),
        "8": row.astype(ml_dtypes.float8_e4m3fn), "32": row.astype(np.uint32),
    }  # fmt: skip
    torch_zip(tmp_path / "x.pt", content, {key: a.tobytes() for key, a in storages.items()})
    found = torch_file.read(tmp_path / "x.pt")
    assert {name: (array.dtype.name, array.shape) for name, array in found.items()} == {
        "w": ("float32", (4,)), "parameter": ("float32", (4,)), "marked": ("float32", (4,)),
        "expanded": ("float32", (3, 4)), "complex": ("complex64", (4,)),
        "float8": ("float8_e4m3fn", (4,)), "uint16": ("uint16", (4,)), "uint32": ("uint32", (4,)),
    }  # fmt: skip
    for array in found.values():
        np.testing.assert_array_equal(np.atleast_2d(array.astype(np.complex64))[-1], row)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b".",  # memory for no bytes
        b"\x80\x02}" + b"r\xff\xff\xff\x3f" + b".",  # a note of number 2**30
        b"\x80\x02)" + b"\x86".join([b"2"] * 60) + b".",
        b"\x80\x02(I1\n" + b"t(t\x86" * 9 + b"Va\nd.",
        b"(" + b"V\n(" * 30_000 + b"d" * 30_000 + b".",  # deeper than Python's stack
    ],
)
def test_a_small_pickle_takes_little_time_and_memory(tmp_path, content):
    torch_zip(tmp_path / "x.pt", content, {})
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"cannot be read|expected tensors by name"):
        torch_file.read(tmp_path / "x.pt")
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()


def test_a_torch_file_of_another_byte_order_is_refused(tmp_path):
    torch_zip(tmp_path / "x.pt", b"(Vw\n" + tensor() + b"d.", {"0": bytes(16)})
    with zipfile.ZipFile(tmp_path / "x.pt", "a") as archive:
        archive.writestr("archive/byteorder", "big")
    with pytest.raises(ValueError, match="big-endian numbers"):
        torch_file.read(tmp_path / "x.pt")


def test_complex_weights_do_not_lose_a_part():
    arrays = convert.from_params(TINY_PARAMS)
    arrays["logit_scale"] = np.full_like(arrays["logit_scale"], 1 + 2j, np.complex64)
    with pytest.raises(ValueError, match="test: logit_scale: expected real numbers"):
        convert.to_params(published(arrays), tiny.SIZES)


def test_damaged_files_are_one_sentence(tmp_path):
    convert.save(tmp_path / "hf", convert.from_params(TINY_PARAMS), tiny.SIZES)
    whole = (tmp_path / "hf" / "model.safetensors").read_bytes()
    (tmp_path / "hf" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="incomplete or not a safetensors file"):
        weights.read(str(tmp_path / "hf"))
    file = tmp_path / "x.pt"
    torch_zip(file, pickle.dumps({}), {"0": bytes(4000)})
    zipped = file.read_bytes()
    for damaged, said in (
        (zipped[: len(zipped) // 2], "a damaged zip"),
        (b"\x80\x02}q\x00.", "before version 1.6"),
        (b"hello", "expected a torch file"),
        (zipped, "expected tensors by name"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=said):
            weights.read(str(file))
    endless: dict = {}
    endless["self"] = endless
    torch_zip(file, pickle.dumps(endless), {})
    with pytest.raises(ValueError, match="expected tensors by name"):
        weights.read(str(file))
    torch_zip(file, b"\x80\x02}(X\x01\x00\x00\x00", {})
    with pytest.raises(ValueError, match="cannot be read"):
        weights.read(str(file))
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("word/document.xml", "")
    with pytest.raises(ValueError, match="expected a zip of torch"):
        weights.read(str(file))
    with pytest.raises(ValueError, match=r"expected one of model.safetensors"):
        weights.read(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="a file or folder of weights, or a name"):
        weights.read(str(tmp_path / "none"))


def test_a_tensor_stays_within_its_bytes():
    storage = np.arange(6, dtype=np.float32)
    got = torch_file._rebuild_tensor(storage, 1, (2, 2), (1, 2))
    np.testing.assert_array_equal(got, [[1, 3], [2, 4]])
    for offset, size, stride in ((0, (7,), (1,)), (5, (2,), (1,)), (0, (2,), (-1,)),
                                 (-1, (1,), (1,)), (0, (2, 2), (1, 5)), (0, (10**12,), (0,))):
        with pytest.raises(pickle.UnpicklingError, match="beyond its bytes"):
            torch_file._rebuild_tensor(storage, offset, size, stride)


def test_the_command_renames_published_weights(tmp_path, capsys):
    config = dataclasses.replace(tiny.SIZES, text=clip.TowerConfig(16, 2, 2))
    arrays = arrays_of(config)
    theirs = {n: np.asarray(a, order="C") for n, a in clip4clip(config, arrays).items()}
    save_file(theirs, tmp_path / "theirs.safetensors")
    assert command.main([str(tmp_path / "theirs.safetensors"), str(tmp_path / "ours")]) == 0
    same(load_file(tmp_path / "ours" / "model.safetensors")
         | load_file(tmp_path / "ours" / "head.safetensors"), arrays)
    told = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert told["text_config"]["num_hidden_layers"] == 2
    assert told["vision_config"]["patch_size"] == 8
    assert "arrays of" in capsys.readouterr().out
    assert command.main([str(tmp_path / "theirs.safetensors"), str(tmp_path / "ours")]) == 2
    assert "expected a new or empty folder" in capsys.readouterr().err
