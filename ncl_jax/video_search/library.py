"""The index behind the search page: what a search needs of it, one version at a time."""

import contextlib
import pathlib
import threading
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ncl_jax.errors import InputError
from ncl_jax.index import RetrievalIndex, storage
from ncl_jax.video_search import banks
from ncl_jax.video_search.run_clips import RunClips
from ncl_jax.video_search.snapshot import IndexSnapshot


class Library:
    """An index on disk and what a search needs of it; follows the file when it is built again."""

    def __init__(
        self,
        path: str,
        encode: Callable[[Sequence[str]], np.ndarray],
        model: str,
        roots: Iterable[pathlib.Path] = (),
        run: RunClips | None = None,
    ) -> None:
        """Reads the index.

        Args:
          path: folder of the index.
          encode: texts to unit-norm rows.
          model: fingerprint of the model that `encode` is of.
          roots: folders, beside that of the videos, that links among the videos may lead to.
          run: the clips, where the index is that of a training run.

        Raises:
          ValueError: as `snapshot`.
        """
        self._path, self._encode, self._model = path, encode, model
        self._roots, self._run = tuple(root.resolve() for root in roots), run
        self._reading, self._embedding = threading.Lock(), threading.Lock()
        self._queries: pathlib.Path | None = None
        self._keeping = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._snapshot: IndexSnapshot | None = None
        self.snapshot()

    def snapshot(self) -> IndexSnapshot:
        """The index as it is on disk now.

        Raises:
          ValueError: it is gone, damaged, made with another checkpoint, or of another folder than
            that of the start.
        """
        with self._reading:
            file = storage.file_of(self._path)
            status = file.stat() if file.exists() else None
            stamp = None if status is None else (status.st_mtime_ns, status.st_size)
            if self._snapshot is None or stamp != self._stamp:
                index = RetrievalIndex.load(self._path, check=True)
                version = "".join(f"{number:x}" for number in stamp or ())
                shown = IndexSnapshot.of(index, version, self._roots, self._run)
                self._check(shown)
                self._snapshot, self._stamp = shown, stamp
            return self._snapshot

    def _check(self, shown: IndexSnapshot) -> None:
        """Whether an index that was built again may take the place of the one of the start."""
        if self._run is not None and self._snapshot is not None:
            raise InputError("the run was evaluated again; start the server again")
        if shown.manifest.model != self._model:
            raise InputError("the index was built with another checkpoint; start the server again")
        if self._snapshot and shown.folder != self._snapshot.folder:
            raise InputError("the index is of another folder now; start the server again")

    def embed(self, query: str) -> np.ndarray:
        """One text -> [1, dim]; one at a time, the model keeps all cores busy."""
        with self._embedding:
            return self._encode([query])

    @property
    def keeps_queries(self) -> bool:
        """Whether `keep` writes queries to a file."""
        return self._queries is not None

    def keep_queries(self) -> None:
        """From now on, `keep` writes queries to a file beside the index.

        Raises:
          OSError: it cannot be written.
        """
        self._queries = banks.queries_file(self._path)
        self._queries.open("a", encoding="utf-8").close()

    def keep(self, query: str) -> None:
        """Remembers what was looked for, on a line of its own, if that was asked for."""
        if self._queries is None:
            return
        # A full disk must not end a search.
        with (
            contextlib.suppress(OSError), self._keeping,
            self._queries.open("a", encoding="utf-8") as file,
        ):  # fmt: skip
            file.write(" ".join(query.split()) + "\n")
