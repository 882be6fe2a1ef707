"""Functions that MlflowClient lacks: paged searches, ending a run without printing, closing connections."""

import time
from collections.abc import Iterator
from getpass import getuser
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


def end_run(client: "MlflowClient", run_id: str, status: str) -> None:
    """Ends a run; `MlflowClient.set_terminated` would also print two lines for each run on a server."""
    from mlflow.entities import RunStatus

    store = _store(client)
    if store is None:
        client.set_terminated(run_id, status)
    else:
        store.update_run_info(run_id, RunStatus.from_string(status), round(time.time() * 1000), None)


def release(client: "MlflowClient") -> None:
    """Closes idle database connections, which MLflow would keep until the process ends."""
    engine = getattr(_store(client), "engine", None)
    if engine is not None:
        engine.dispose()


def _store(client: "MlflowClient") -> Any:
    """Returns the client's store; None in versions of MLflow that keep it in another attribute."""
    return getattr(getattr(client, "_tracking_client", None), "store", None)


def user() -> str:
    """Returns the login name; empty if the user has none."""
    try:
        return getuser()
    except (OSError, KeyError):
        return ""
