"""Compares your files with what a set needs.

    python -m tfds_builders.check msrvtt/9k --manual_dir data/manual

Lists are compared with captions and files, and every listed file is opened and its first frame
decoded; `--deep` decodes all frames. Ends with 0 if the set is complete, 1 if something is
missing, 2 if the files could not be understood.
"""

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import rich.box
import rich.console
import rich.table
import tqdm
from etils import epath

from ncl_jax.cli import versions
from ncl_jax.cli.parsing import Parser
from ncl_jax.errors import InputError
from ncl_jax.files import write_text
from ncl_jax.video import decode
from tfds_builders import decoding, layout, preparation, video_records
from tfds_builders.frame_store import BuildOptions

_INTERRUPTED = "interrupted; run the same command again to resume"


def check(
    name: str,
    manual_dir: str,
    deep: bool = False,
    options: BuildOptions | None = None,
) -> dict[str, Any]:
    """Compares what is in `<manual_dir>/<name>/` with what belongs there.

    Args:
      name: as for `prepare`.
      manual_dir: likewise.
      deep: decode every frame of every file instead of the first one.
      options: processes and time limit.

    Returns:
      {'name', 'folder', 'complete', 'splits': {split: `video_records.account` and 'damaged'},
      'surplus': {'count', 'first'}, 'notes': [sentences]}, ready for JSON.

    Raises:
      FileNotFoundError: files are missing; the message shows the expected tree.
      ValueError: unknown name, or a file of another form.
    """
    builder_class, config = preparation.resolve(name, {})
    folder = epath.Path(manual_dir) / builder_class.name
    found = builder_class.read_layout(folder, config)
    listed = layout.listed_videos(found)
    options = options or BuildOptions(give_up_after=0)
    unreadable, damaged = _probe_all(listed, deep, options)
    splits = {}
    for split, clips in found.splits.items():
        splits[split] = video_records.account(found, split, unreadable)
        bad = [clip for clip in clips if clip in damaged]
        first = {clip: damaged[clip] for clip in bad[: layout.NAMES_KEPT]}
        splits[split]["damaged"] = {"count": len(bad), "first": first}
    surplus = sorted(clip for clip in found.videos if clip not in listed)
    return {
        "name": name,
        "folder": str(folder),
        "complete": all(_whole(account) for account in splits.values()),
        "splits": splits,
        "surplus": {"count": len(surplus), "first": surplus[: layout.NAMES_KEPT]},
        "notes": list(found.notes),
    }


def _probe_all(
    clips: dict[str, epath.Path], deep: bool, options: BuildOptions
) -> tuple[dict[str, str], dict[str, str]]:
    """Reasons of unreadable clips, and what damage a deep look met in the others."""
    unreadable, damaged = {}, {}
    results = decoding.on_workers(lambda worker, _, path: worker.probe(path, deep), clips, options)
    with contextlib.closing(results):
        for clip, result in tqdm.tqdm(results, total=len(clips), desc="checking", unit="clip"):
            if isinstance(result, decode.VideoError):
                unreadable[clip] = str(result)
            elif result.damaged:
                seen = f"{result.damaged:,} damaged packets beside {result.frames:,} frames"
                damaged[clip] = seen
    return unreadable, damaged


def _whole(account: dict[str, Any]) -> bool:
    clips, published = account["clips"], account["published"]
    return clips["used"] == clips["expected"] == published.get("clips", clips["expected"])


def table(report: dict[str, Any]) -> rich.table.Table:
    """The report's counts, one row per split."""
    columns = (
        "split", "published", "listed", "no caption", "missing", "unreadable", "damaged", "usable",
        "captions", "of",
    )  # fmt: skip
    out = rich.table.Table(title=f"{report['name']} in {report['folder']}", box=rich.box.MARKDOWN)
    for column in columns:
        out.add_column(column, justify="left" if column == "split" else "right")
    for split, account in report["splits"].items():
        clips, captions = account["clips"], account["captions"]
        without = account["uncaptioned"]["count"]
        published = account["published"].get("clips")
        out.add_row(
            split,
            "-" if published is None else f"{published:,}",
            f"{clips['expected'] + without:,}",
            f"{without:,}",
            *(f"{account[kind]['count']:,}" for kind in ("missing", "unreadable", "damaged")),
            f"{clips['used']:,}",
            f"{captions['used']:,}",
            f"{captions['expected']:,}",
        )
    return out


def details(report: dict[str, Any]) -> list[str]:
    """Notes, and the names behind the counts."""
    lines = list(report["notes"])
    for split, account in report["splits"].items():
        missing = account["missing"]
        if missing["count"]:
            lines.append(_named(f"{split}: missing", missing["count"], missing["first"]))
        for kind in ("unreadable", "damaged"):
            first = account[kind]["first"]
            lines += [f"{split}: {kind}: {clip}: {reason}" for clip, reason in first.items()]
            if account[kind]["count"] > len(first):
                lines.append(f"{split}: {account[kind]['count'] - len(first):,} more {kind}")
    if report["surplus"]["count"]:
        lines.append(_named("in no split", report["surplus"]["count"], report["surplus"]["first"]))
    return lines


def _named(what: str, count: int, first: Sequence[str]) -> str:
    rest = f" and {count - 5:,} more" if count > 5 else ""
    return f"{what}: {count:,} clips: {', '.join(first[:5])}{rest}"


def run(command: Callable[[], int]) -> int:
    """Runs a command; bad input is one message and exit code 2, an interrupt 130."""
    with _interruptible():
        return _run(command)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """An interrupt ends the process in good order or, where that hangs, after five seconds.

    Python raises it wherever the main thread is, which may be where others then wait for a lock.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave() -> None:
        print(_INTERRUPTED, file=sys.stderr, flush=True)
        os._exit(130)

    def interrupt(*_: object) -> None:
        timer = threading.Timer(5, leave)
        timer.daemon = True
        timer.start()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run(command: Callable[[], int]) -> int:
    try:
        versions.check()
        return command()
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        return 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(prog="python -m tfds_builders.check", description=__doc__)
    parser.add_argument("name", help="msvd, msrvtt/9k, activitynet/paragraph, ...")
    parser.add_argument("--manual_dir", required=True, help="holds one folder per set")
    parser.add_argument("--deep", action="store_true", help="decode every frame")
    parser.add_argument("--json", metavar="FILE", help="also write the report there")
    parser.add_argument("--jobs", type=int, default=0, help="processes; 0: one per core")
    flags = parser.parse_args(arguments)

    def command() -> int:
        options = BuildOptions(jobs=flags.jobs, give_up_after=0)
        report = check(flags.name, flags.manual_dir, flags.deep, options)
        rich.console.Console(width=120).print(table(report))
        for line in details(report):
            print(line)
        if flags.json:
            write_text(flags.json, json.dumps(report, indent=1))
        print("complete" if report["complete"] else "not complete")
        return 0 if report["complete"] else 1

    return run(command)


if __name__ == "__main__":
    sys.exit(main())
