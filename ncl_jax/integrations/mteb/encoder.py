"""A model of ours as an encoder of mteb."""

import functools
from typing import Any

import numpy as np
from mteb.models import ModelMeta
from mteb.models.model_meta import ScoringFunction

from ncl_jax.errors import InputError
from ncl_jax.integrations.mteb.videos import CHUNK, videos
from ncl_jax.integrations.rows import rows_of, unit
from ncl_jax.pretrained import Model


class Encoder:
    """A model of ours for `mteb.evaluate`: text and video tasks, scored by the cosine.

    Video files are decoded as ncl_jax does everywhere; torchcodec is not needed.

    Args:
      model: as from `ncl_jax.load`.
      name: "organization/model", the name under which mteb stores results.
      revision: which state of the model this is; mteb returns stored results where name and
        revision are those of an earlier evaluation. None: of the model's fingerprint, so that a
        model that was trained further is evaluated anew.

    Raises:
      ValueError: a name without "/".

    Example:
      >>> import mteb
      >>> tasks = mteb.get_tasks(["MSVDT2VRetrieval", "MSVDV2TRetrieval"])
      >>> def score(folder):
      ...     return mteb.evaluate(Encoder(ncl_jax.load(folder), "me/clip"), tasks)
    """

    def __init__(self, model: Model, name: str = "ncl_jax/model", revision: str | None = None):
        if "/" not in name:
            raise InputError(f'name: expected "organization/model", got {name!r}')
        self.model, self.name, self._revision = model, name, revision

    @functools.cached_property
    def mteb_model_meta(self) -> ModelMeta:
        """What mteb writes beside the results."""
        return ModelMeta.create_empty({
            "name": self.name,
            "revision": self._revision or self.model.fingerprint[:16],
            "max_tokens": float(self.model.max_tokens),
            "embed_dim": int(self.model.dim),
            "framework": ["JAX"],
            "similarity_fn_name": ScoringFunction.COSINE,
            "use_instructions": False,
            "modalities": ["text", "video"],
        })

    def encode(
        self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str,
        prompt_type: Any = None, **kwargs: Any,
    ) -> np.ndarray:  # fmt: skip
        """Unit-norm rows [input, dim] of a DataLoader of mteb.

        Args:
          inputs: batches with the column `text` or `video`.
          task_metadata: of the task; for messages.
          hf_split: not used.
          hf_subset: not used.
          prompt_type: not used: the model has no prompts.
          kwargs: of mteb; `batch_size` holds for texts, `show_progress_bar` for both.

        Raises:
          ValueError: inputs of text and video at once, of neither, or a video that is missing.
        """
        modalities = {"text", "video"} & set(inputs.dataset.column_names)
        progress = kwargs.get("show_progress_bar")
        if modalities == {"text"}:
            texts = [text for batch in inputs for text in batch["text"]]
            size = kwargs.get("batch_size")
            return self.model.encode_text(texts, batch_size=size, progress=progress)
        if modalities == {"video"}:
            chunks = videos(inputs.dataset, CHUNK)
            rows = [self.model.encode_video(part, progress=progress) for part in chunks]
            return np.concatenate(rows)
        raise InputError(
            f"{task_metadata.name}: expected inputs of text or of video, got columns "
            f"{', '.join(inputs.dataset.column_names)}; choose a task with one of both per side"
        )

    def similarity(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Cosines [one, other] of rows [one, dim] and [other, dim]."""
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
        """Cosines [row] of rows [row, dim] and [row, dim]."""
        return np.sum(_unit(embeddings1) * _unit(embeddings2), axis=1)


def _unit(embeddings: Any) -> np.ndarray:
    """One vector counts as a matrix of one row, as in mteb."""
    alone = getattr(embeddings, "ndim", 2) == 1
    return unit(rows_of(embeddings[None] if alone else embeddings, "embeddings"))
