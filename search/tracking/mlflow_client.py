"""Functions that MlflowClient lacks: paged searches, ending a run without printing, closing connections."""

import time
from collections.abc import Iterator
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def runs(client: "MlflowClient", experiment_id: str, condition: str) -> "Iterator[Run]":
    """Yields all runs, newest first; a single search would silently stop at 1,000."""
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            condition,
            max_results=1000,
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def end_run(client: "MlflowClient", run_id: str, status: str, ended_at: float | None = None) -> None:
    """Ends a run; `MlflowClient.set_terminated` would also print two lines for each run on a server.

    Args:
        client: The client.
        run_id: The run.
        status: MLflow's status of the run from now on.
        ended_at: When it ended, in seconds since the epoch; None is now.
    """
    from mlflow.entities import RunStatus

    store, end_ms = _store(client), round((time.time() if ended_at is None else ended_at) * 1000)
    if store is None:
        client.set_terminated(run_id, status, end_ms)
    else:
        store.update_run_info(run_id, RunStatus.from_string(status), end_ms, None)


def release(client: "MlflowClient") -> None:
    """Closes idle database connections, which MLflow would keep until the process ends."""
    engine = getattr(_store(client), "engine", None)
    if engine is not None:
        engine.dispose()


def make_tables(path: Path) -> None:
    """Makes the tables of a new SQLite file; does nothing where the file is there. Called by one process at a time.

    They are made in a file beside it, which takes its place when it is whole: MLflow cannot open a file again in which a
    process was killed while it made them.
    """
    if path.exists():
        return
    from mlflow import MlflowClient

    for left in path.parent.glob(f".{path.name}.new*"):
        left.unlink()
    # MLflow keeps the store of a URI: a second attempt needs a name of its own
    made = path.with_name(f".{path.name}.new{time.time_ns()}").resolve()
    client = MlflowClient(tracking_uri=f"sqlite:///{made}", registry_uri=f"sqlite:///{made}")
    client.search_experiments(max_results=1)
    release(client)
    made.replace(path)


def _store(client: "MlflowClient") -> Any:
    """Returns the client's store; None in versions of MLflow that keep it in another attribute."""
    return getattr(getattr(client, "_tracking_client", None), "store", None)


def user() -> str:
    """Returns the login name; empty if the user has none."""
    try:
        return getuser()
    except (OSError, KeyError):
        return ""
