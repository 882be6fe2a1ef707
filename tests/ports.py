"""Ports for servers that tests start."""

import contextlib
import random
import socket


def free_port():
    """Returns a port that nobody listens at.

    It lies below the range from which systems take the ports of outgoing connections: one of those might take it before
    its server starts.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as listening:
            listening.bind(("127.0.0.1", port))
            return port
