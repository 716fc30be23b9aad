"""A trained model to hold: loaded from a run, a folder or the hub; used; saved; published.

    model = ncl_jax.load("runs/demo")
    video = model.encode_video(["a.mp4", "b.mp4"])
    model.rank(model.encode_text(["a red ball"]), video)

The story: `checkpoint.read` -> `Model` -> `inputs` -> `encoders`; `saving` writes it out again.
"""

from ncl_jax.pretrained.inputs import Windows
from ncl_jax.pretrained.model import Model, Ranking, load

__all__ = ["Model", "Ranking", "Windows", "load"]
