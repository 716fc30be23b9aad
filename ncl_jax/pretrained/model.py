"""A trained model in Python: captions and videos to vectors, similarities, normalised ranks."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8
from tqdm import tqdm

from ncl_jax.errors import InputError
from ncl_jax.normalizers import Bank, Ncl, Plain
from ncl_jax.pretrained import checkpoint as checkpoints
from ncl_jax.pretrained import inputs, saving
from ncl_jax.pretrained.checkpoint import CaptionBank, Checkpoint
from ncl_jax.pretrained.encoders import Encoders, Frames
from ncl_jax.pretrained.inputs import Windows
from ncl_jax.pretrained.preprocessing import Preprocessing

Video = str | os.PathLike[str] | UInt8[np.ndarray, "frame height width 3"]
"""A file, or the RGB pixels of frames."""


class Ranking(NamedTuple):
    """Normalised scores and how they came about.

    Attributes:
      scores: in logits [text, video]; higher is better.
      evidence: the normaliser, its bank, and what its fit reports.
    """

    scores: Float[np.ndarray, "text video"]
    evidence: dict[str, Any]

    def top(self, k: int) -> Int[np.ndarray, "text rank"]:
        """The k best videos of each text, best first; of equal scores the earlier video."""
        return np.argsort(-self.scores, axis=1, kind="stable")[:, :k]


def load(source: str | os.PathLike[str], *, dtype: str | None = None) -> "Model":
    """The model of a training run, of published weights, or of a saved folder.

    Args:
      source: workdir of a run; a folder that `Model.save_pretrained` wrote; a folder or file of
        CLIP weights (Hugging Face, OpenAI, OpenCLIP, CLIP4Clip) beside their tokenizer; or a name
        on the Hugging Face hub, which is downloaded once.
      dtype: of the towers' matrix products, "float32" or "bfloat16"; None: as trained. Parameters
        and embeddings are float32.

    Raises:
      FileNotFoundError: there is no such run, folder, file or name.
      ValueError: it cannot be used; the message says why.

    Example:
      >>> try:
      ...     load("no/such/run/here")
      ... except FileNotFoundError as error:
      ...     print(str(error).partition(", or")[0])
      no/such/run/here: expected a run, a file or folder of weights
    """
    return Model(checkpoints.read(os.fspath(source), dtype))


class Model:
    """Text and video encoders of one model, on all devices of this process.

    All methods may be called from several threads. Embeddings are those of evaluation.

    Example:
      >>> import tempfile
      >>> from ncl_jax.pretrained import random_weights
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     model = load(random_weights.write(folder))
      >>> text = model.encode_text(["a red ball", "a blue cube"])
      >>> video = model.encode_video([np.zeros((3, 32, 48, 3), np.uint8)])
      >>> model.similarity(text, video).shape
      (2, 1)
    """

    def __init__(self, checkpoint: Checkpoint):
        """See `load`.

        Raises:
          ValueError: its head scores pairs, so that clips have no vectors.
        """
        if checkpoint.towers.score is not None:
            raise InputError(
                f"{checkpoint.source}: its head {checkpoint.sizes.temporal} scores pairs, so clips "
                "have no embeddings and cannot be searched; choose a model with another head"
            )
        self._encoders = Encoders(checkpoint)
        self.checkpoint = checkpoint._replace(params=self._encoders.params)
        self.batch_size, self.dim = checkpoint.batch_size, checkpoint.sizes.embed_dim
        self.max_tokens = checkpoint.preprocessing.shapes.max_tokens
        self.scale = float(checkpoint.towers.scale(checkpoint.params))

    # -- what it is ----------------------------------------------------------------------------

    @property
    def preprocessing(self) -> Preprocessing:
        """How files become the pixels that the model sees."""
        return self.checkpoint.preprocessing

    @property
    def bank(self) -> CaptionBank | None:
        """The captions that the model was trained on, where they came with it."""
        return self.checkpoint.bank

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of parameters, tokenizer and preprocessing: differs between any two models."""
        # What a model starts from, and how it saves memory, moves no embedding.
        sizes = dataclasses.replace(self.checkpoint.sizes, init_scale=1.0, remat=False)
        given = json.dumps(self.preprocessing.to_json(), sort_keys=True)
        digest = hashlib.sha256(f"{sizes}{given}".encode())
        digest.update(self.checkpoint.tokenizer.to_json().encode())
        for leaf in jax.tree.leaves(self.checkpoint.params):
            digest.update(np.asarray(leaf).data)
        return digest.hexdigest()

    def __repr__(self) -> str:
        sizes, shapes = self.checkpoint.sizes, self.preprocessing.shapes
        count = sum(leaf.size for leaf in jax.tree.leaves(self.checkpoint.params))
        bank = f"{len(self.bank.text):,} training captions" if self.bank else "none"
        return (
            f"Model({self.checkpoint.source!r}: CLIP of {sizes.vision.layers} and "
            f"{sizes.text.layers} layers, {sizes.temporal} over up to {shapes.max_frames} frames "
            f"of {shapes.image_size} pixels at {self.preprocessing.frames.fps:g} per second, "
            f"{shapes.max_tokens} tokens, {self.dim} dimensions, {count:,} parameters, "
            f"{sizes.dtype}, scale {self.scale:.1f}, bank: {bank})"
        )

    # -- embeddings ----------------------------------------------------------------------------

    def encode_text(
        self,
        texts: Sequence[str],
        *,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> Float[np.ndarray, "text dim"]:
        """Embeddings of captions or queries; equal texts have equal rows.

        Args:
          texts: at least one; of a text longer than `max_tokens` the end is not read.
          batch_size: texts at a time; None: as in evaluation.
          progress: whether a bar is shown; None: on a terminal, from the second batch on.

        Returns:
          float32 [text, dim], unit norm.

        Raises:
          ValueError: no texts, a single text instead of a list, or an entry that is no text.
        """
        texts = inputs.checked_texts(texts)
        different, place = np.unique(np.asarray(texts, object), return_inverse=True)
        size = inputs.checked_size(batch_size, self.batch_size)
        with _bar(len(different), size, "text", progress) as bar:
            return self._encoders.captions(different.tolist(), size, bar)[place]

    @overload
    def encode_video(
        self, videos: Sequence[Video], *, window: None = None, batch_size: int | None = None,
        progress: bool | None = None, seconds: float = 900.0,
    ) -> Float[np.ndarray, "video dim"]: ...  # fmt: skip

    @overload
    def encode_video(
        self, videos: Sequence[Video], *, window: float, batch_size: int | None = None,
        progress: bool | None = None, seconds: float = 900.0,
    ) -> Windows: ...  # fmt: skip

    def encode_video(
        self, videos: Sequence[Video], *, window: float | None = None,
        batch_size: int | None = None, progress: bool | None = None, seconds: float = 900.0,
    ) -> Float[np.ndarray, "video dim"] | Windows:  # fmt: skip
        """Embeddings of videos, or of their windows.

        Args:
          videos: at least one; each a file, or RGB pixels uint8 [frame, height, width, 3] of
            frames at the rate of `preprocessing.frames.fps`. Files are decoded in processes.
          window: seconds per window, >= 1; a short rest joins the window before it. Needs files,
            because arrays have no times. None: one embedding per video.
          batch_size: clips at a time; None: as in evaluation.
          progress: whether a bar is shown; None: on a terminal, from the second batch on.
          seconds: that decoding one file may take.

        Returns:
          float32 [video, dim], unit norm; with `window` a `Windows`.

        Raises:
          ValueError: no videos, an array of another type or shape, a file that cannot be read (a
            `VideoError`), or a window below 1.
        """
        videos = inputs.checked_videos(videos, window)
        size = inputs.checked_size(batch_size, self.batch_size)
        total = len(videos) if window is None else None
        with _bar(total, size, "clip", progress) as bar:
            return inputs.encode(
                videos, self.preprocessing.frames, window, seconds, size,
                lambda clips: self._encoders.clips(clips, size, bar),
            )  # fmt: skip

    def encode_frames(
        self, clips: Sequence[Frames], *, batch_size: int | None = None
    ) -> Float[np.ndarray, "video dim"]:
        """Embeddings of clips whose frames were read already, [video, dim].

        Args:
          clips: at least one; JPEG files of its frames, or RGB pixels.
          batch_size: clips at a time; None: as in evaluation.

        Raises:
          ValueError: no clips, or one without frames.
        """
        if not len(clips) or not all(map(len, clips)):
            raise InputError("clips: expected at least one clip, and frames in each, got none")
        size = inputs.checked_size(batch_size, self.batch_size)
        with _bar(len(clips), size, "clip", False) as bar:
            return self._encoders.clips(clips, size, bar)

    # -- scores --------------------------------------------------------------------------------

    def similarity(
        self, text: Float[np.ndarray, "text dim"], video: Float[np.ndarray, "video dim"]
    ) -> Float[np.ndarray, "text video"]:
        """Cosines [text, video] of unit-norm embeddings.

        Raises:
          ValueError: not matrices of this model's width, or not finite.
        """
        text = inputs.checked_rows(text, "text", self.dim)
        return text @ inputs.checked_rows(video, "video", self.dim).T

    def rank(
        self,
        text: Float[np.ndarray, "text dim"],
        video: Float[np.ndarray, "video dim"],
        bank: Sequence[str] | Float[np.ndarray, "bank dim"] | None = None,
        *,
        normalizer: Any = None,
    ) -> Ranking:
        """Scores under which every video gets its fair share of the bank's queries.

        Args:
          text: queries, unit norm.
          video: the gallery, unit norm.
          bank: texts that look like queries, or their embeddings; None: the captions the model was
            trained on, where it has them, else plain scores.
          normalizer: of `ncl_jax.normalizers`, such as `Csls()`; None: `Ncl` at the model's scale.
            One of the transductive kind looks at all queries together.

        Returns:
          Scores in logits and the evidence: `normalizer`, `kind`, `bank`, and the fit's own.

        Raises:
          ValueError: rows of another width or not finite, an empty bank, a normaliser that needs
            more than texts.
        """
        text = inputs.checked_rows(text, "text", self.dim)
        video = inputs.checked_rows(video, "video", self.dim)
        rows, source = self._bank_rows(bank)
        if rows is None:
            normalizer = Plain(self.scale)
        elif normalizer is None:
            normalizer = Ncl(self.scale)
        fitted = normalizer.fit(None if rows is None else Bank(rows), video)
        evidence = {"normalizer": type(normalizer).__name__, "kind": fitted.kind, "source": source}
        return Ranking(
            np.asarray(fitted.score(text)), evidence | getattr(fitted, "evidence", {})
        )

    def _bank_rows(self, bank: Any) -> tuple[np.ndarray | None, str]:
        if bank is None and self.bank is None:
            return None, "no bank: plain scores"
        if bank is None:
            assert self.bank is not None
            return self.bank.text, f"{len(self.bank.text):,} training captions"
        if isinstance(bank, np.ndarray | jax.Array):
            rows = inputs.checked_rows(np.asarray(bank), "bank", self.dim)
            return rows, f"{len(rows):,} embeddings"
        rows = self.encode_text(bank)
        return rows, f"{len(rows):,} texts"

    # -- to others -----------------------------------------------------------------------------

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes all of it to a new or empty folder; see `saving.save`.

        `load` reads it back, and `transformers.CLIPModel.from_pretrained` the towers.

        Raises:
          ValueError: the folder holds something.
          OSError: it cannot be written.
        """
        saving.save(self.checkpoint, folder)

    def push_to_hub(self, name: str, *, private: bool = False) -> str:
        """Saves to a repository on the Hugging Face hub, and returns its address.

        Args:
          name: as "owner/model"; created if missing.
          private: whether only its owner sees a repository that is created.

        Raises:
          ValueError: not such a name, no network, or no right to write there.
        """
        return saving.push(self.checkpoint, name, private)


def _bar(total: int | None, batch: int, unit: str, progress: bool | None) -> tqdm:
    """A progress bar; by default none off a terminal (tqdm's `disable=None`) or for one batch."""
    hidden = True if total is not None and total <= batch else None
    disable = hidden if progress is None else not progress
    return tqdm(total=total, unit=f" {unit}", disable=disable, dynamic_ncols=True)
