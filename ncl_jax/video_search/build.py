"""The videos of a folder into an index that follows it; see `manifest` for what is saved."""

import contextlib
import dataclasses
import math
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping

from tqdm import tqdm

from ncl_jax.errors import InputError
from ncl_jax.files import one_line
from ncl_jax.index import RetrievalIndex, storage
from ncl_jax.pretrained import Model, load
from ncl_jax.video import decode
from ncl_jax.video.pool import GIVE_UP_AFTER
from ncl_jax.video_search import banks, gallery
from ncl_jax.video_search.manifest import GalleryManifest, Stamp, manifest_of

SECONDS_BETWEEN_SAVES = 60.0


@dataclasses.dataclass(frozen=True)
class VideoIndexOptions:
    """What to build, and how.

    Attributes:
      index: its folder.
      videos: folder of video files, at any depth.
      checkpoint: what embeds them: a training run, a folder or file of weights, a hub name.
      bank: file of texts that look like queries, or of their embeddings; "": none.
      learn_bank: whether queries that the page has kept (`serve --learn-bank`) are in the bank.
      window: seconds of a video per item, >= 1.
      timeout: seconds that decoding one video may take, > 0.
      give_up_after: the build stops when this many first videos all fail for one reason; 0 never
        stops it.
      iterations: of Sinkhorn, >= 0.
      strength: of normalisation, in [0, 1].
    """

    index: str
    videos: str
    checkpoint: str
    bank: str = ""
    learn_bank: bool = False
    window: float = 10.0
    timeout: float = 900.0
    give_up_after: int = GIVE_UP_AFTER
    iterations: int = 4
    strength: float = 1.0

    def __post_init__(self) -> None:
        """What is wrong with the values alone; embedding may take hours."""
        if not self.videos:
            raise InputError("--videos: expected a folder of videos, got an empty name")
        if not self.checkpoint:
            raise InputError(
                "--videos: expected --checkpoint too: a run, a folder of weights or a hub name"
            )
        if not 1 <= self.window < math.inf:
            raise InputError(f"--window: expected a number of seconds from 1, got {self.window:g}")
        if not self.timeout > 0:
            raise InputError(
                f"--timeout: expected a number of seconds above 0, got {self.timeout:g}"
            )
        if self.give_up_after < 0:
            raise InputError(f"--give-up-after: expected at least 0, got {self.give_up_after}")
        if self.iterations < 0:
            raise InputError(f"--iterations: expected at least 0, got {self.iterations}")
        if not 0 <= self.strength <= 1:
            raise InputError(f"--strength: expected a number from 0 to 1, got {self.strength:g}")

    @property
    def partial(self) -> pathlib.Path:
        """Where an unfinished build keeps what it has embedded."""
        return pathlib.Path(self.index) / "index.partial"


def build(options: VideoIndexOptions) -> Iterator[str]:
    """Embeds what is new or changed, drops what is gone, and fits the biases of all windows.

    The result is the one a build from nothing would give. What was embedded is saved on the way,
    beside the index: a build that was interrupted goes on where it was, and the index stays as it
    is until the new one is whole.

    Yields:
      Sentences for the user.

    Raises:
      ValueError: no video to embed, a run or an index that do not serve, or another command at
        work on the index.
    """
    gallery.find_files(options.videos)  # a wrong folder is known before a model is loaded
    texts = banks.read(options.bank, options.learn_bank, options.index)
    _check_writable(options.index)
    yield f"loading {options.checkpoint}"
    model = load(options.checkpoint)
    yield f"model: {model}"
    bank = banks.embed(texts, model, banks.known_rows(options.index, model))
    with storage.changed(options.index):
        yield from _build(options, model, bank)


def _build(
    options: VideoIndexOptions, model: Model, bank: banks.GalleryBank
) -> Iterator[str]:
    files = gallery.find_files(options.videos)
    manifest = GalleryManifest(
        folder=os.path.abspath(options.videos),
        run=_place(options.checkpoint),
        model=model.fingerprint,
        window=options.window,
        frames=decode.VERSION,
    )
    old = _known(options, manifest, files)
    entries = gallery.reusable_entries(old, files, options.videos)
    todo = {name: stamp for name, stamp in files.items() if name not in entries}
    gone = {entry.stamp for entry in old.values()} - set(files.values())
    yield f"{len(files)} files: {len(todo)} to embed, {len(entries)} known, " \
          f"{len(gone)} gone or changed"
    _embed(options, model, todo, entries, manifest)
    for name in todo:
        if entries[name].error:
            yield f"skipped: {one_line(name)}: {entries[name].error}"
        for remark in entries[name].remarks:
            yield f"remark: {one_line(name)}: {remark}"
    index = _finish(options, model.scale, bank, entries, manifest)
    yield from banks.remarks(bank)
    yield f"{len(index)} windows of {_readable(entries)} files, bank: {bank.source} -> " \
          f"{options.index}"


def _place(checkpoint: str) -> str:
    """What a later command finds the model by, from wherever it is started."""
    path = pathlib.Path(checkpoint).expanduser()
    return os.path.abspath(path) if path.exists() else checkpoint


def _check_writable(path: str) -> None:
    """Tries it out: rights and free space are not all that can be wrong."""
    folder = storage.folder_of(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error}; name another INDEX") from error


def _known(
    options: VideoIndexOptions, manifest: GalleryManifest, files: Mapping[str, Stamp]
) -> dict[str, gallery.Entry]:
    """What the index, or a build that was interrupted, knows of the files through this model.

    Raises:
      ValueError: it is no index of videos, or one of another folder's.
    """
    known = _entries(pathlib.Path(options.index), manifest, files)
    try:
        return known | _entries(options.partial, manifest, files)
    except InputError as error:  # it is nobody's but ours, and will be written again
        print(f"{error}; its files are embedded again", file=sys.stderr)
        return known


def _entries(
    path: pathlib.Path, manifest: GalleryManifest, files: Mapping[str, Stamp]
) -> dict[str, gallery.Entry]:
    if not storage.exists(path):
        return {}
    try:
        index = RetrievalIndex.load(path, check=True)
    except InputError as error:
        raise InputError(f"{path} cannot be read as an index; remove it or name another") from error
    try:
        before = manifest_of(index)
    except InputError as error:
        raise InputError(
            f"{path}: this index was not built from videos; name another INDEX"
        ) from error
    # The folder itself may have moved; with none of its files it is another one.
    if before.folder != manifest.folder and not set(before.files) & set(files):
        raise InputError(
            f"{path} holds {len(before.files)} videos of {before.folder}, none of which is "
            f"in {manifest.folder}; name another INDEX, or remove it first"
        )
    return gallery.entries_of(index) if before.embeds_as(manifest) else {}


def _embed(
    options: VideoIndexOptions,
    model: Model,
    todo: dict[str, Stamp],
    entries: dict[str, gallery.Entry],
    manifest: GalleryManifest,
) -> None:
    """Fills `entries`, saving now and then, when interrupted and before an error ends it."""
    saved = time.monotonic()
    progress = tqdm(total=len(todo), unit=" file", disable=not todo, dynamic_ncols=True)
    embedded = gallery.embed_files(
        options.videos, todo, model.encode_frames,
        dataclasses.replace(model.preprocessing.frames, look="shown"), model.batch_size,
        window=options.window, seconds=options.timeout, give_up_after=options.give_up_after,
    )  # fmt: skip
    try:
        for name, entry in embedded:
            entries[name] = entry
            progress.update()
            if time.monotonic() > saved + SECONDS_BETWEEN_SAVES:
                with contextlib.suppress(OSError):  # there may be room when it is finished
                    _save_partial(options, entries, manifest)
                saved = time.monotonic()
    except KeyboardInterrupt:
        kept = _keep(options, entries, manifest)
        print(f"interrupted; {kept}; run the same command again to resume", file=sys.stderr)
        sys.exit(130)
    except Exception:
        _keep(options, entries, manifest)
        raise
    finally:
        embedded.close()
        progress.close()


def _save_partial(
    options: VideoIndexOptions,
    entries: dict[str, gallery.Entry],
    manifest: GalleryManifest,
    place: pathlib.Path | None = None,
) -> None:
    """Embeddings without biases: quick to write, and all that going on needs."""
    ids, rows = gallery.rows_of(entries)
    whole = dataclasses.replace(manifest, files=gallery.files_of(entries))
    RetrievalIndex.build(ids, rows, meta=whole.as_meta()).save(place or options.partial)


def _keep(
    options: VideoIndexOptions, entries: dict[str, gallery.Entry], manifest: GalleryManifest
) -> str:
    """Saves what was embedded, where there is no room among the temporary files; says where."""
    count = _readable(entries)
    if not count:
        return "no file was embedded"
    try:
        _save_partial(options, entries, manifest)
        return f"{count} files are saved in {options.partial}"
    except OSError:
        pass
    try:
        elsewhere = pathlib.Path(tempfile.mkdtemp(prefix="ncl_jax-")) / options.partial.name
        _save_partial(options, entries, manifest, elsewhere)
        return f"{count} files are saved in {elsewhere}: move it to {options.partial}"
    except OSError as error:
        return f"{count} embedded files could not be saved ({error})"


def _finish(
    options: VideoIndexOptions,
    scale: float,
    bank: banks.GalleryBank,
    entries: dict[str, gallery.Entry],
    manifest: GalleryManifest,
) -> RetrievalIndex:
    ids, rows = gallery.rows_of(entries)
    if not ids:
        raise InputError(
            f"{options.videos}: expected at least one video that can be read, found none"
        )
    whole = dataclasses.replace(manifest, files=gallery.files_of(entries))
    index = RetrievalIndex.build(
        ids, rows, bank.text, scale=scale, iterations=options.iterations,
        strength=options.strength,
        meta=whole.as_meta() | banks.as_meta(bank),
    )  # fmt: skip
    try:
        index.save(options.index)
    except OSError as error:
        raise OSError(f"{error}; {_keep(options, entries, manifest)}") from error
    shutil.rmtree(options.partial, ignore_errors=True)
    return index


def _readable(entries: dict[str, gallery.Entry]) -> int:
    """Files that could be read."""
    return sum(not entry.error for entry in entries.values())
