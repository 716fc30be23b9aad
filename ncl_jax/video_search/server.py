"""The server of the search page: waitress, with limits that keep it open to everyone.

A connection that asks for nothing costs a client nothing and the server a place. Places are
limited, in all and for each client, and whoever comes when they are taken gets that of the oldest
connection that is waiting; connections that are being answered are never closed for others.
"""

import logging
import socket
from collections.abc import Iterable
from typing import Any

import flask
import waitress
from waitress.channel import HTTPChannel

from ncl_jax.video_search.examples import MOST

THREADS = 16
CONNECTIONS = 200
"""At once, in all; a process may often open no more than 256 files."""
CONNECTIONS_OF_ONE = 50
"""At once, for each address; a browser opens six."""
IDLE_SECONDS = 30
"""A connection over which nothing has gone for so long is closed; a player just connects again."""
CLEAN_SECONDS = 5
_HEADER = 1 << 16
_BODY = MOST + 1  # waitress refuses this many


def create_server(app: flask.Flask, listener: socket.socket) -> Any:
    """A server that `run()` starts and `close()` ends.

    Args:
      app: what answers.
      listener: where it listens.
    """
    server = waitress.create_server(
        app,
        sockets=[listener],
        threads=THREADS,
        connection_limit=CONNECTIONS + 50,  # beyond it, waitress stops accepting
        channel_timeout=IDLE_SECONDS,
        cleanup_interval=CLEAN_SECONDS,
        max_request_header_size=_HEADER,
        max_request_body_size=_BODY,
        asyncore_use_poll=True,  # `select` knows 1024 files only
    )
    server.channel_class = _admit
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # that requests wait is usual
    return server


def _admit(server: Any, connection: socket.socket, address: Any, *rest: Any, **named: Any) -> None:
    """Takes a new connection in, in the place of the oldest one that waits where all are taken."""
    everyone = [c for c in server.active_channels.values() if not c.will_close]
    own = [channel for channel in everyone if channel.addr[0] == address[0]]
    for crowd, places in ((own, CONNECTIONS_OF_ONE), (everyone, CONNECTIONS)):
        if len(crowd) >= places:
            if not (waiting := _waiting(crowd)):
                connection.close()
                return
            min(waiting, key=lambda channel: channel.creation_time).will_close = True
            break
    HTTPChannel(server, connection, address, *rest, **named)


def _waiting(channels: Iterable[Any]) -> list[Any]:
    """Those that have not asked for anything yet, or have got it all."""
    return [c for c in channels if not c.requests and not c.total_outbufs_len]
