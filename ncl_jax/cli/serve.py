"""A local page to search an index of videos.

    python -m ncl_jax.cli.serve [--index INDEX] [--port 8000] [--host 127.0.0.1] [--root FOLDER]
                                [--learn-bank]

`INDEX` is what `python -m ncl_jax.cli.index build INDEX --videos FOLDER --checkpoint MODEL` made.
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
from typing import Any

from ncl_jax.cli import exits
from ncl_jax.cli.index import DEFAULT
from ncl_jax.cli.parsing import Parser
from ncl_jax.errors import InputError
from ncl_jax.files import one_line
from ncl_jax.index import RetrievalIndex
from ncl_jax.pretrained import load
from ncl_jax.video_search import app, banks, server
from ncl_jax.video_search.clips import ClipCache
from ncl_jax.video_search.library import Library
from ncl_jax.video_search.manifest import manifest_of


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until interrupted; its exit code, see `exits`."""
    parser = Parser(prog="python -m ncl_jax.cli.serve", description=__doc__)
    parser.add_argument("--index", default=DEFAULT, help="folder (default %(default)s)")
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
    index = RetrievalIndex.load(args.index)
    manifest = manifest_of(index)
    model = load(manifest.run)
    if model.fingerprint != manifest.model:
        raise InputError(f"{args.index} was built with another checkpoint; build it again")
    library = Library(args.index, model.encode_text, model.fingerprint, _roots(args.root))
    library.embed("warm up: the first query compiles the model")
    if args.learn_bank:
        library.keep_queries()
        kept = one_line(str(banks.queries_file(args.index)))
        print(f"queries are kept in {kept}, for `index build --learn-bank`")
    hosts = app.LOOPBACK if args.host in app.LOOPBACK else None
    with (
        contextlib.closing(ClipCache()) as clips,
        _listening(args.host, args.port) as listener,
    ):
        serving = server.create_server(app.create_app(library, clips, hosts), listener)
        _serve(serving, args.host, listener.getsockname()[1], manifest.folder)


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


def _serve(serving: Any, host: str, port: int, folder: str) -> None:
    address = f"[{host}]" if ":" in host else host
    shown = one_line(folder)
    print(f"http://{address}:{port}/  shows the videos of {shown} (stop with Ctrl-C)", flush=True)
    try:
        serving.run()
    except KeyboardInterrupt:
        pass
    finally:
        serving.close()


if __name__ == "__main__":
    sys.exit(main())
