"""A local page to search an index of videos, or the test clips of a finished run.

    python -m ncl_jax.cli.serve [INDEX | RUN] [--port 8000] [--host 127.0.0.1] [--root FOLDER]
                                [--learn-bank]

`INDEX` is what `python -m ncl_jax.cli.index build INDEX --videos FOLDER --checkpoint MODEL` made,
`video_index` if none is named. `RUN` is the workdir of a finished run, as runs/demo: its test clips
are searched, shown with their test captions, and played from the video files of its dataset.
The page answers on this machine only, unless --host says otherwise; then anyone who reaches it
sees the videos. Only files of the indexed folder are shown, as they were indexed; a link in it
that leads elsewhere is followed where --root names the folder that it leads to.
"""

import argparse
import contextlib
import pathlib
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ncl_jax.cli import exits
from ncl_jax.cli.index import DEFAULT
from ncl_jax.cli.parsing import Parser
from ncl_jax.errors import InputError
from ncl_jax.files import one_line
from ncl_jax.progress import announced

if TYPE_CHECKING:
    from ncl_jax.video_search.opening import OpenedIndex


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until interrupted; its exit code, see `exits`."""
    parser = Parser(prog="python -m ncl_jax.cli.serve", description=__doc__)
    parser.add_argument(
        "index", nargs="?", metavar="INDEX|RUN", help=f"folder of an index (default {DEFAULT}), "
        "or the workdir of a finished run",
    )
    parser.add_argument("--index", dest="named", metavar="INDEX", help="the same")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument(
        "--root", action="append", default=[], metavar="FOLDER",
        help="a folder that links among the videos may lead to; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--learn-bank", action="store_true",
        help="keep the queries in a file beside the index, from which `index build --learn-bank` "
        "learns what is looked for; nothing leaves this machine",
    )  # fmt: skip
    args = parser.parse_args(argv)
    return exits.run_cli(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Loads, listens, and serves."""
    if args.index is not None and args.named is not None:
        raise InputError(f"expected one index or run, got {args.index} and {args.named}")
    path, roots = args.index or args.named or DEFAULT, _roots(args.root)
    with announced("importing JAX and Flask", sys.stderr):
        from ncl_jax.video_search import app, banks, server
        from ncl_jax.video_search.clips import ClipCache
        from ncl_jax.video_search.examples import Examples
        from ncl_jax.video_search.opening import open_index
    with announced("loading the index and its model", sys.stderr):
        opened = open_index(path, roots)
    with announced("compiling the model for the first query", sys.stderr):
        opened.library.embed("warm up")
    if args.learn_bank and opened.run is not None:
        raise InputError("--learn-bank: expected an index of own videos, got the one of a run")
    if args.learn_bank:
        opened.library.keep_queries()
        kept = one_line(str(banks.queries_file(opened.path)))
        print(f"queries are kept in {kept}, for `index build --learn-bank`")
    if opened.run is not None and opened.run.remark:
        print(opened.run.remark, file=sys.stderr)
    hosts = app.LOOPBACK if args.host in app.LOOPBACK else None
    with (
        contextlib.closing(ClipCache()) as clips,
        contextlib.closing(Examples(opened.model, opened.frames)) as examples,
        _listening(args.host, args.port) as listener,
    ):
        application = app.create_app(opened.library, clips, hosts, examples)
        serving = server.create_server(application, listener)
        _serve(serving, args.host, listener.getsockname()[1], _shown(opened))


def _shown(opened: "OpenedIndex") -> str:
    """What the page shows, for the line that names its address."""
    if opened.run is not None:
        return f"the test clips of {opened.run.run}"
    return f"the videos of {opened.library.snapshot().folder}"


def _roots(folders: Sequence[str]) -> list[pathlib.Path]:
    for folder in folders:
        if not pathlib.Path(folder).is_dir():
            raise InputError(f"--root: expected a folder, got {folder!r}")
    return [pathlib.Path(folder) for folder in folders]


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"cannot listen on {host} port {port}: {error}; choose another --host or --port"
        ) from error


def _serve(serving: Any, host: str, port: int, what: str) -> None:
    address = f"[{host}]" if ":" in host else host
    print(f"http://{address}:{port}/  shows {one_line(what)} (stop with Ctrl-C)", flush=True)
    try:
        serving.run()
    except KeyboardInterrupt:
        pass
    finally:
        serving.close()


if __name__ == "__main__":
    sys.exit(main())
