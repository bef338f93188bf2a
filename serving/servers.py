"""What servers of ours share: a socket to listen on, and logs as lines of JSON."""

from __future__ import annotations

import logging
import socket

from serving.logs import JsonFormatter


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OSError: The address is taken or is not ours; says which.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2_048)
    except OSError as error:
        raise OSError(
            f"{host}:{port}: {error.strerror}; choose another --host or --port"
        ) from error


def log_as_json() -> None:
    """Log to stderr: ours from INFO on, libraries' from WARNING on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("querylift").setLevel(logging.INFO)
    logging.captureWarnings(True)
