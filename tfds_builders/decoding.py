"""Clips to packed JPEG frames on disk, on all cores, going on where a killed build stopped."""

import contextlib
from collections.abc import Callable, Generator, Mapping
from typing import TypeVar

import tqdm
from etils import epath

from ncl_jax.errors import InputError
from ncl_jax.files import remove_drafts
from ncl_jax.video import pool
from ncl_jax.video.decode import VideoError
from ncl_jax.video.worker import VideoWorker
from tfds_builders.frame_store import BuildOptions, FrameStore

_Result = TypeVar("_Result")


class BadVideosError(InputError):
    """Unreadable files, one line each."""


def decode_clips(
    store: FrameStore, clips: Mapping[str, epath.Path], options: BuildOptions
) -> dict[str, str]:
    """Decodes the clips that `store` lacks, with a progress bar.

    Returns:
      Clip id -> reason, of those that are unreadable, in the order of `clips`.

    Raises:
      BadVideosError: there are some, and `options.on_bad` is 'error'.
    """
    epath.Path(store.folder).mkdir(parents=True, exist_ok=True)
    remove_drafts(store.folder)
    todo = {clip: path for clip, path in clips.items() if not store.has(clip, path)}
    if options.beam is None:
        unreadable = _decode_here(store, todo, len(clips), options)
    else:
        from tfds_builders import beam_decoding

        unreadable = beam_decoding.decode(store, todo, options)
    unreadable = {clip: unreadable[clip] for clip in clips if clip in unreadable}
    if unreadable and options.on_bad == "error":
        lines = "\n".join(f"  {reason}" for reason in unreadable.values())
        raise BadVideosError(
            f"{len(unreadable):,} of {len(clips):,} video files are unreadable:\n{lines}\n"
            "Replace them, or build without them: --on_bad=skip. Decoded clips are saved."
        )
    return unreadable


def _decode_here(
    store: FrameStore, todo: Mapping[str, epath.Path], total: int, options: BuildOptions
) -> dict[str, str]:
    unreadable: dict[str, str] = {}
    if not todo:
        return unreadable
    bar = tqdm.tqdm(total=total, initial=total - len(todo), desc="decoding", unit="clip")
    # Closed here: an interrupt that comes between two results must end the decoding too.
    with bar, contextlib.closing(on_workers(store.decode, todo, options)) as results:
        for clip, result in results:
            if isinstance(result, VideoError):
                unreadable[clip] = str(result)
                bar.set_postfix_str(f"{len(unreadable):,} unreadable")
            bar.update()
    return unreadable


def on_workers(
    function: Callable[[VideoWorker, str, epath.Path], _Result],
    clips: Mapping[str, epath.Path],
    options: BuildOptions,
) -> Generator[tuple[str, _Result | VideoError], None, None]:
    """`video_pool.read_files` as `options` say; yields as the files are done."""
    return pool.read_files(
        function, clips, jobs=options.jobs, seconds=options.clip_seconds,
        give_up_after=options.give_up_after,
    )  # fmt: skip
