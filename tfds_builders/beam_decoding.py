"""The same work under Apache Beam, for corpora that one machine would take too long for.

Needs `requirements-beam.txt`, in an environment of its own. All machines must see the video files
and `data_dir` under the same paths.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options import pipeline_options as beam_options
from etils import epath

from ncl_jax.video import pool, worker
from ncl_jax.video.decode import VideoError, file_name
from tfds_builders import layout, video_records
from tfds_builders.frame_store import BuildOptions, FrameStore


def pipeline_options(options: BuildOptions) -> beam_options.PipelineOptions:
    """Beam's form of `options.beam`, as ('runner=DirectRunner', 'direct_num_workers=2')."""
    return beam_options.PipelineOptions([f"--{option}" for option in options.beam or ()])


class _Decode(beam.DoFn):
    """Decodes clips into the store; each worker of Beam keeps one decoding process."""

    def __init__(self, store: FrameStore, seconds: float):
        self._store, self._seconds = store, seconds

    def setup(self) -> None:
        self._worker = worker.VideoWorker(self._seconds)

    def process(self, element: tuple[str, str]) -> None:
        clip, path = element
        try:
            self._store.decode(self._worker, clip, epath.Path(path))
        except VideoError as error:
            self._store.refuse(clip, epath.Path(path), error.reason)

    def teardown(self) -> None:
        self._worker.close()


def decode(
    store: FrameStore, todo: Mapping[str, epath.Path], options: BuildOptions
) -> dict[str, str]:
    """`decoding.decode_clips` by a pipeline; returns clip id -> reason."""
    jobs = [(clip, str(path)) for clip, path in todo.items()]
    with beam.Pipeline(options=pipeline_options(options)) as pipeline:
        _ = (
            pipeline
            | beam.Create(jobs, reshuffle=True)
            | beam.ParDo(_Decode(store, options.clip_seconds))
        )
    unreadable, give_up = dict[str, str](), pool.GiveUp(options.give_up_after)
    for clip, path in todo.items():
        bad = None if store.has(clip, path) else store.reason(clip, path)
        give_up.see(None if bad is None else VideoError(path, bad))
        if bad is not None:
            unreadable[clip] = f"{file_name(path)}: {bad}"
    return unreadable


def examples(
    store: FrameStore, inputs: Sequence[tuple[str, epath.Path, layout.Texts]]
) -> beam.PTransform:
    """Decoded clips as TFDS examples."""

    def example(clip: str, path: str, texts: layout.Texts) -> tuple[str, dict[str, Any]]:
        decoded = store.load(clip, epath.Path(path))
        return clip, video_records.record(clip, texts, decoded)

    rows = [(clip, str(path), texts) for clip, path, texts in inputs]
    return beam.Create(rows, reshuffle=True) | beam.MapTuple(example)
