"""Pictures and clips as queries: decoded in a process with a time limit, embedded by the model."""

import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from typing import IO

import numpy as np
from jaxtyping import Float

from ncl_jax.pretrained import Model
from ncl_jax.pretrained.preprocessing import StoredFrames
from ncl_jax.video.example import Kind
from ncl_jax.video.worker import VideoWorker, unpack

MOST = 32 << 20
"""Bytes of a file that is given to the page."""
SECONDS = 60.0
"""That decoding it may take."""


class Examples:
    """Files to unit-norm rows, one at a time; safe to call from several threads."""

    def __init__(self, model: Model, frames: StoredFrames, seconds: float = SECONDS):
        """`frames`: how files are read; `seconds`: time limit per file."""
        self._model, self._frames = model, frames
        self._worker, self._one = VideoWorker(seconds), threading.Lock()

    def embed(
        self, paths: Sequence[str | os.PathLike[str]], kind: Kind = "either"
    ) -> Float[np.ndarray, "query dim"]:
        """Embeddings of pictures, each a clip of one frame, or of whole clips.

        Raises:
          VideoError: a file cannot be decoded as this kind, or not in time.
        """
        given = self._frames
        with self._one:
            clips = [
                unpack(self._worker.decode_example(
                    path, kind, fps=given.fps, short_side=given.short_side,
                    jpeg_quality=given.jpeg_quality, look=given.look,
                )).frames
                for path in paths
            ]  # fmt: skip
            return self._model.encode_frames(clips)

    def embed_stream(self, stream: IO[bytes]) -> Float[np.ndarray, "1 dim"]:
        """The embedding of a picture or clip that comes as bytes.

        Raises:
          VideoError: it cannot be decoded, or not in time.
        """
        with tempfile.NamedTemporaryFile(prefix="ncl_jax-example-") as file:
            shutil.copyfileobj(stream, file)
            file.flush()
            return self.embed([file.name])

    def close(self) -> None:
        """Ends the process."""
        self._worker.close()
