"""How a set is built, and the packed JPEG frames of its clips on disk."""

import dataclasses
import hashlib
import importlib.util
import json
from typing import Literal

from etils import epath

from ncl_jax.errors import InputError
from ncl_jax.files import replaced
from ncl_jax.video import pool
from ncl_jax.video.decode import Clip, Look
from ncl_jax.video.worker import VideoWorker, remarks_of, unpack
from tfds_builders import layout


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """How to build; nothing of it changes what a good file gives.

    Attributes:
      on_bad: 'skip' accounts for unreadable files; 'error' refuses to build, naming all of them.
      jobs: decoding processes, 0 for one per core.
      clip_seconds: time limit per file.
      give_up_after: the build stops when this many first files all fail for one and the same
        reason; 0 never stops it.
      beam: options of Apache Beam as 'name=value' strings, to decode and write with it; None
        for processes of this machine.
    """

    on_bad: Literal["skip", "error"] = "skip"
    jobs: int = 0
    clip_seconds: float = 900.0
    give_up_after: int = pool.GIVE_UP_AFTER
    beam: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.on_bad not in ("skip", "error"):
            raise InputError(f"on_bad: expected 'error' or 'skip', got {self.on_bad!r}")
        if self.jobs < 0:
            raise InputError(f"jobs: expected at least 0, got {self.jobs}")
        if self.give_up_after < 0:
            raise InputError(f"give_up_after: expected at least 0, got {self.give_up_after}")
        if not self.clip_seconds > 0:
            raise InputError(f"clip_seconds: expected a number > 0, got {self.clip_seconds}")
        if self.beam is not None and importlib.util.find_spec("apache_beam") is None:
            raise InputError(
                "beam: expected Apache Beam to be installed; make an environment of its own and "
                "pip install -r requirements-beam.txt there"
            )


@dataclasses.dataclass(frozen=True)
class FrameStore:
    """Packed clips in a folder, one file each.

    A name is a hash of the clip's id, its file's size and time and what is made of it, so no id
    reaches the file system and a replaced file is decoded anew.

    Attributes:
      folder: as a string, to travel to other machines.
      fps: frames kept per second.
      short_side: pixels.
      jpeg_quality: 1 to 95.
      decoder: version of the decoder.
      look: `stored` or `shown`, see `video.decode_frames`.
    """

    folder: str
    fps: float
    short_side: int
    jpeg_quality: int
    decoder: str
    look: Look = "stored"

    def decode(self, worker: VideoWorker, clip: str, path: epath.Path) -> None:
        """Decodes a file and keeps the result.

        Raises:
          VideoError: the file is bad.
        """
        data = worker.decode(
            path, fps=self.fps, short_side=self.short_side, jpeg_quality=self.jpeg_quality,
            look=self.look,
        )  # fmt: skip
        with replaced(self._place(clip, path), tidy=False) as stream:
            stream.write(data)

    def refuse(self, clip: str, path: epath.Path, reason: str) -> None:
        """Notes why a clip is not there, for who waits elsewhere."""
        self._place(clip, path).with_suffix(".txt").write_text(reason)

    def reason(self, clip: str, path: epath.Path) -> str:
        """What `refuse` noted."""
        return self._place(clip, path).with_suffix(".txt").read_text()

    def has(self, clip: str, path: epath.Path) -> bool:
        """Whether the clip was decoded before."""
        return self._place(clip, path).exists()

    def load(self, clip: str, path: epath.Path) -> Clip:
        """The frames of a clip that was decoded."""
        return unpack(self._place(clip, path).read_bytes())

    def remarks(self, clip: str, path: epath.Path) -> tuple[str, ...]:
        """What the decoder remarked of a clip that was decoded."""
        with self._place(clip, path).open("rb") as packed:
            return remarks_of(packed)

    def _place(self, clip: str, path: epath.Path) -> epath.Path:
        form = [self.fps, self.short_side, self.jpeg_quality, self.decoder, self.look]
        made_of = json.dumps([clip, *layout.size_and_time(path), *form])
        digest = hashlib.sha256(made_of.encode()).hexdigest()
        return epath.Path(self.folder) / f"{digest[:32]}.npz"
