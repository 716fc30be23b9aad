"""Windows of files that browsers do not play, transcoded when they are asked for, and kept."""

import collections
import contextlib
import hashlib
import os
import pathlib
import tempfile
import threading

from ncl_jax.files import replaced
from ncl_jax.video.worker import VideoWorker

KEPT = 256 << 20
"""Bytes of transcoded clips that are kept among the temporary files while the page is served."""
SECONDS = 120.0
"""That transcoding one window may take."""


class ClipCache:
    """Transcoded windows on disk, the longest unused removed first; one is made at a time."""

    def __init__(self, kept: int = KEPT, seconds: float = SECONDS):
        """`kept`: bytes; `seconds`: time limit per clip. Folder and process come with the first."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._worker, self._making = VideoWorker(seconds), threading.Lock()
        self._kept, self._sizes = kept, collections.OrderedDict[str, int]()
        self._lock = threading.Lock()  # of what is kept

    def path(self, video: pathlib.Path, start: float, end: float) -> pathlib.Path:
        """The file of a window, in seconds from the video's first picture.

        Raises:
          VideoError: it cannot be decoded in time.
        """
        key = f"{video}\n{video.stat().st_mtime_ns}\n{start}\n{end}"
        name = hashlib.sha256(os.fsencode(key)).hexdigest() + ".mp4"
        if (known := self._known(name)) is not None:
            return known
        with self._making:  # another request may have made it meanwhile
            return self._known(name) or self._make(name, video, start, end)

    def close(self) -> None:
        """Ends the process and removes the clips."""
        self._worker.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _known(self, name: str) -> pathlib.Path | None:
        """A clip that is kept; nobody waits for one that is being made to get it."""
        with self._lock:
            if name not in self._sizes:
                return None
            self._sizes.move_to_end(name)
            return self._place(name)

    def _make(self, name: str, video: pathlib.Path, start: float, end: float) -> pathlib.Path:
        data = self._worker.transcode(video, start, end)
        with self._lock:
            with replaced(self._place(name)) as stream:
                stream.write(data)
            self._sizes[name] = len(data)
            self._tidy()
        return self._place(name)

    def _place(self, name: str) -> pathlib.Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="ncl_jax-clips-")
        return pathlib.Path(self._folder.name, name)

    def _tidy(self) -> None:
        while len(self._sizes) > 1 and sum(self._sizes.values()) > self._kept:
            oldest, _ = self._sizes.popitem(last=False)
            with contextlib.suppress(OSError):
                self._place(oldest).unlink()
