"""Builds a set: `python -m tfds_builders.build msvd --manual_dir data/manual --data_dir data/tfds`.

Uses all cores and no TensorFlow. Run the same command again to resume an interrupted build.
Unreadable files are listed at the end, and nothing is built unless `--on_bad=skip`.
"""

import sys
from collections.abc import Sequence

import tensorflow_datasets as tfds

from ncl_jax.cli.parsing import Parser
from ncl_jax.video import pool
from tfds_builders import check, preparation
from tfds_builders.frame_store import BuildOptions


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(prog="python -m tfds_builders.build", description=__doc__)
    parser.add_argument("name", help="msvd, msrvtt/9k, activitynet/paragraph, demo, ...")
    parser.add_argument("--manual_dir", required=True, help="holds one folder per set")
    parser.add_argument("--data_dir", required=True, help="where datasets are saved")
    parser.add_argument("--on_bad", choices=("error", "skip"), default="error",
                        help="unreadable files: build nothing, or build without them")
    parser.add_argument("--jobs", type=int, default=0, help="processes; 0: one per core")
    parser.add_argument("--clip_seconds", type=float, default=900, help="time limit per file")
    parser.add_argument("--give_up_after", "--give-up-after", type=int, metavar="N",
                        default=pool.GIVE_UP_AFTER,
                        help="stop when the first N files all fail for one reason; 0: never")
    parser.add_argument("--fps", type=float, default=1.0, help="frames saved per second")
    parser.add_argument("--short_side", type=int, default=None, help="pixels of stored frames")
    parser.add_argument("--jpeg_quality", type=int, default=90, help="1 to 95")
    parser.add_argument("--look", choices=("stored", "shown"), default="stored",
                        help="pixels and colours as the file stores them (the published "
                        "pipelines' choice), or as a player shows them")
    parser.add_argument("--download", action="store_true",
                        help="download the public files first (msvd: the clips)")
    parser.add_argument("--verify", action="store_true",
                        help="compare a dataset that is there with the content of every video "
                        "file, not only their names, sizes and times")
    parser.add_argument("--beam", nargs="*", metavar="NAME=VALUE", default=None,
                        help="use Apache Beam with these options, as runner=DirectRunner")
    flags = parser.parse_args(arguments)

    def command() -> int:
        beam = None if flags.beam is None else tuple(flags.beam)
        options = BuildOptions(
            flags.on_bad, flags.jobs, flags.clip_seconds, flags.give_up_after, beam
        )
        settings = {"fps": flags.fps, "jpeg_quality": flags.jpeg_quality, "look": flags.look}
        if flags.short_side is not None:
            settings["short_side"] = flags.short_side
        preparation.resolve(flags.name, settings)
        if flags.download:
            preparation.download(flags.name, flags.manual_dir, **settings)
        tfds.disable_progress_bar()
        preparation.prepare(
            flags.name, flags.manual_dir, flags.data_dir, options, flags.verify, **settings
        )
        return 0

    return check.run(command)


if __name__ == "__main__":
    sys.exit(main())
