"""Checks a tracking URI before the search starts, without importing MLflow and without a connection."""

import os
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

from search.record.redact import redact_text
from spaces.errors import ConfigError, unknown_name

_SERVERS = ("http", "https")
_DATABASES = ("postgresql", "mysql", "mssql")
_NAMED = ("databricks", "databricks-uc")


def check_uri(uri: str) -> None:
    """Raises ConfigError if nothing can ever be logged to `uri`; a server that is merely down passes."""
    where = f"tracker.uri is {redact_text(str(uri))!r}"
    if not isinstance(uri, str) or not uri.strip():
        raise ConfigError(f"{where}, but must be a URI, e.g. sqlite:///mlflow.db (tracker=none logs nowhere)")
    scheme, separator, _ = uri.partition(":")
    kind = scheme.partition("+")[0].lower()
    if kind == "sqlite":
        _check_folder(sqlite_path(uri, where).parent, where)
    elif kind in (*_SERVERS, *_DATABASES):
        if not _host(uri, where):
            raise ConfigError(f"{where}, which has no host; {kind}://HOST... is expected")
    elif kind == "file" or (not separator and uri not in _NAMED):
        raise ConfigError(f"{where}: MLflow no longer logs to plain folders; use sqlite:///PATH.db")
    elif kind not in _NAMED and scheme not in (known := _plugins()):
        schemes = ("sqlite", *_SERVERS, *_DATABASES, *_NAMED, *known)
        raise ConfigError(
            f"{unknown_name('scheme', scheme, schemes, 'tracker.uri')} E.g. sqlite:///mlflow.db"
        )


def sqlite_path(uri: str, where: str = "tracker.uri") -> Path:
    """Returns the file of a `sqlite:///...` URI.

    Raises:
        ConfigError: The URI names no file.
    """
    _, separator, path = uri.partition(":///")
    path = path.partition("?")[0]
    if not separator or not path or path == ":memory:":
        raise ConfigError(f"{where}, which has no file; sqlite:///PATH.db is expected, with three slashes")
    return Path(path)


def default_artifacts(uri: str, artifact_dir: str | None) -> str | None:
    """Returns the artifact URI of a new experiment: beside a SQLite file; None lets the server choose."""
    if artifact_dir is not None:
        return artifact_dir if "://" in artifact_dir else Path(artifact_dir).resolve().as_uri()
    if uri.lower().startswith("sqlite"):
        return (sqlite_path(uri).resolve().parent / "mlartifacts").as_uri()
    return None


def check_artifacts(artifact_dir: str | None) -> None:
    """Raises ConfigError if a local artifact folder cannot be written."""
    if artifact_dir is None or "://" in artifact_dir:
        return
    folder = Path(artifact_dir)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    _check_folder(folder, f"tracker.artifact_dir is {artifact_dir!r}")


def _host(uri: str, where: str) -> str | None:
    try:
        return urlsplit(uri).hostname
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _check_folder(folder: Path, where: str) -> None:
    if not folder.is_dir():
        raise ConfigError(
            f"{where}: the folder {str(folder)!r} does not exist; create it or name another one"
        )
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{where}: the folder {str(folder)!r} cannot be written; name another one")


def _plugins() -> tuple[str, ...]:
    return tuple(e.name for e in entry_points(group="mlflow.tracking_store"))
