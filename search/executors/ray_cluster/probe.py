"""A program that asks a Ray cluster what it is, before a study connects to it: `python -P probe.py ADDRESS`.

Ray's own connection retries for minutes where nobody answers, and ends the process where a token is missing. So this runs in
a process of its own, which may be ended. It prints one line of JSON last: `{"nodes": [...]}`, or `{"error": "..."}`.

It is run by its path and imports nothing of the product.
"""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

_SOCKET_S, _REQUEST_S, _READY_S = 5.0, 5.0, 10.0
_FORMS = "the forms are auto, HOST:PORT and ray://HOST:PORT"
_ALIVE = 0


def main(address: str) -> dict[str, Any]:
    """Returns what is printed."""
    try:
        if "://" in address:
            _client_server(address)
            return {"nodes": []}
        return {"nodes": _nodes(address)}
    except _RefusedError as error:
        return {"error": str(error)}
    except Exception as error:  # whatever Ray raises is told as it is
        return {"error": _text(error)}


class _RefusedError(Exception):
    """The cluster cannot be used; the text says why."""


def _nodes(address: str) -> list[dict[str, Any]]:
    """Returns the living nodes of the cluster whose head listens at HOST:PORT, or that runs on this machine (`auto`)."""
    if address == "auto":
        address = _running_here()
    _answers(address)
    _has_token()
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    client = GcsClient(address=address)
    raw = client.internal_kv_get(b"CLUSTER_METADATA", namespace=b"cluster", timeout=_REQUEST_S)
    _same_versions(json.loads(raw) if raw else {})
    every = client.get_all_node_info(timeout=_REQUEST_S).items()
    nodes = {name.hex(): node for name, node in every if node.state == _ALIVE}
    _is_here(set(nodes))
    return [
        {
            "NodeID": name,
            "NodeManagerAddress": node.node_manager_address,
            "Alive": True,
            "Resources": dict(node.resources_total),
        }
        for name, node in nodes.items()
    ]


def _is_here(nodes: set[str]) -> None:
    """Raises if none of the nodes runs on this machine: Ray would look for one for a minute."""
    try:
        from ray._private.services import find_node_ids
    except ImportError:  # private to Ray: other versions may have another one
        return
    if nodes and not nodes & set(find_node_ids()):
        raise _RefusedError(
            "none of its nodes is this machine, where the study runs. Submit the study as a job (ray job submit), or "
            "connect as a client: executor.address=ray://HOST:10001"
        )


def _client_server(address: str) -> None:
    """Raises if no client server listens at ray://HOST:PORT. It starts a process per client: the connection itself asks for its nodes."""
    if not address.startswith("ray://"):
        raise _RefusedError(_FORMS)
    _answers(address.removeprefix("ray://"))
    _has_token()
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import ray_client_pb2, ray_client_pb2_grpc

    channel = init_grpc_channel(address.removeprefix("ray://"))
    try:
        grpc.channel_ready_future(channel).result(timeout=_READY_S)
        ping = ray_client_pb2.ClusterInfoRequest(type=ray_client_pb2.ClusterInfoType.PING)
        ray_client_pb2_grpc.RayletDriverStub(channel).ClusterInfo(ping, timeout=_REQUEST_S)
    except grpc.FutureTimeoutError as error:
        raise _RefusedError("what listens there is no Ray client server") from error
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise _RefusedError(_wrong_token()) from error
        raise


def _running_here() -> str:
    from ray._private.services import canonicalize_bootstrap_address

    found = canonicalize_bootstrap_address("auto")
    if found is None:
        raise _RefusedError("no Ray runs on this machine, and RAY_ADDRESS is not set")
    return str(found)


def _answers(address: str) -> None:
    """Raises if nobody listens there."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise _RefusedError(_FORMS)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SOCKET_S).close()
    except OSError as error:
        raise _RefusedError(f"nobody answers at {address} ({error.strerror or error})") from error


def token_file() -> Path:
    """Returns the file in which Ray looks for the token."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def _has_token() -> None:
    """Raises if a token is wanted and there is none, where Ray would end the process."""
    if os.environ.get("RAY_AUTH_MODE") != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return
    file = token_file()
    if not file.is_file() or not file.read_text().strip():
        raise _RefusedError(
            f"auth_mode is token, but there is no token: {file} is missing or empty, and RAY_AUTH_TOKEN is not set"
        )


def _same_versions(cluster: dict[str, Any]) -> None:
    """Raises if the cluster's Ray or Python differs from this one's: Ray takes no other."""
    import ray

    ours = {"ray_version": ray.__version__, "python_version": ".".join(map(str, sys.version_info[:3]))}
    if any(cluster.get(key, value) != value for key, value in ours.items()):
        raise _RefusedError(
            f"it runs Ray {cluster['ray_version']} on Python {cluster['python_version']}, but the study runs Ray "
            f"{ours['ray_version']} on Python {ours['python_version']}: both must be the same"
        )


def _text(error: Exception) -> str:
    """Returns the error in one line; Ray's text on tokens is long."""
    if type(error).__name__ == "AuthenticationError":
        return _wrong_token()
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _wrong_token() -> str:
    mode = os.environ.get("RAY_AUTH_MODE", "disabled")
    return (
        f"it does not accept the token (RAY_AUTH_MODE={mode}). Set executor.auth_mode=token, and the cluster's token in "
        "RAY_AUTH_TOKEN or in a file that RAY_AUTH_TOKEN_PATH names"
    )


if __name__ == "__main__":
    sys.stdout.write(f"\n{json.dumps(main(sys.argv[1]))}\n")
    sys.stdout.flush()
    os._exit(0)  # without the goodbyes of a client, which may wait
