"""A local page to search an index of videos.

    python -m ncl_jax.cli.serve [--index INDEX] [--port 8000] [--host 127.0.0.1] [--root FOLDER]

`INDEX` is what `python -m ncl_jax.cli.index build INDEX --videos FOLDER --checkpoint WORKDIR` made.
The page answers on this machine only, unless --host says otherwise; then anyone who reaches it
sees the videos. Only files of the indexed folder are shown, as they were indexed; a link in it
that leads elsewhere is followed where --root names the folder that it leads to.
"""

import argparse
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
