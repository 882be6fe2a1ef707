"""A study in a database: one writer at a time, and restarts of the server survived."""

import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.trial import FrozenTrial, TrialState

from search.record.redact import redact_text
from search.record.storage.writer_lock import Holder, WriterLock, refused, this_process
from spaces.errors import StudyError

_LOG = logging.getLogger(__name__)
OUTAGE_S = 600.0  # a server that is away for longer ends the study
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 15.0
_HANDOVER_S = 3.0  # in which a server notices that the process which held a study's lock is dead
_POSTGRES = {"postgresql", "postgres"}
_OUTAGES = {"OperationalError", "InterfaceError", "PendingRollbackError", "TimeoutError", "_OwnSessionError"}
_READ_ONLY = "25006"  # PostgreSQL's code: a standby that is about to become the server


def open_database(url: str, name: str, held: ExitStack) -> BaseStorage:
    """Opens the storage of an Optuna storage URL, as the only writer of a study.

    Args:
        url: The URL; `postgresql://` is taken as `postgresql+psycopg://`.
        name: `study.name`.
        held: Gets what has to be closed at the end: connections and locks.

    Raises:
        StudyError: Another process writes the study, or the database cannot be opened.
    """
    url = _with_driver(url)
    kind = url.partition(":")[0].partition("+")[0].lower()
    where = f"the study {name!r} in study.storage={redact_text(url)}"
    logging.getLogger("optuna.storages._rdb.storage").setLevel(
        logging.ERROR
    )  # it prints statements of failed reads
    if kind == "sqlite" and (path := _sqlite_file(url)) is not None:
        mark = hashlib.sha256(name.encode()).hexdigest()[:8]
        held.callback(WriterLock(path.with_name(f"{path.name}.{mark}.lock"), where).release)
    database = _opened(url)
    if kind in _POSTGRES:
        # With a single connection, the session that writes is the one that holds the lock.
        _use(database, _PostgresLock(name, where))
    elif kind not in ("sqlite", *_POSTGRES):
        _LOG.warning(
            "%s: nothing keeps a second driver off a database of this kind; never run two of one study", where
        )
    held.callback(database.engine.dispose)
    held.callback(database.scoped_session.remove)
    storage = get_storage(database)
    storage._backend = _Steady(database, where)  # type: ignore[attr-defined] # under Optuna's own cache
    return storage


def _opened(url: str) -> RDBStorage:
    """Makes the tables, where there are none."""
    return RDBStorage(url, engine_kwargs={"pool_pre_ping": True, "connect_args": _limits(url)})


def _use(database: RDBStorage, lock: "_PostgresLock") -> None:
    """Makes a database use one connection only, which holds a lock from when it is opened."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.orm import scoped_session, sessionmaker

    database.engine.dispose()  # it made the tables, and needed two connections for it
    database.engine = create_engine(
        database.url, pool_pre_ping=True, pool_size=1, max_overflow=0, connect_args=_limits(database.url)
    )
    event.listen(database.engine, "connect", lock)
    database.scoped_session = scoped_session(sessionmaker(bind=database.engine))
    try:
        database.engine.connect().close()
    except BaseException:
        database.engine.dispose()
        raise


def _with_driver(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if scheme.lower() not in _POSTGRES:
        return url
    if find_spec("psycopg") is None:
        raise StudyError(
            f"study.storage={redact_text(url)} needs psycopg: pip install 'paredown[postgres]' (or name another driver, "
            "e.g. postgresql+psycopg2://)"
        )
    return f"postgresql+psycopg{separator}{rest}"


def _limits(url: str) -> dict[str, Any]:
    """Returns how long libpq waits for a server that does not answer; what the URL says itself is left alone."""
    if "+psycopg" not in url.partition(":")[0]:
        return {}
    limits = {
        "connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
    }  # fmt: skip
    return {key: value for key, value in limits.items() if f"{key}=" not in url}


def _sqlite_file(url: str) -> Path | None:
    """Returns the file of a `sqlite:///...` URL, whatever links lead to it; None for one in memory."""
    path = url.partition("://")[2].removeprefix("/").partition("?")[0].removeprefix("file:")
    return None if path in ("", ":memory:") or "mode=memory" in url else Path(path).resolve()


class _PostgresLock:
    """Takes a study's advisory lock on every new connection; the server releases it with the connection.

    After a restart of the server the new connection takes it again, unless another driver was faster. The session's name
    (`application_name`) says who holds it. A pooler between that shares sessions (PgBouncer's transaction mode) cannot
    hold locks.

    Args:
        name: `study.name`.
        where: The study and its database, for messages.
    """

    def __init__(self, name: str, where: str) -> None:
        digest = hashlib.sha256(f"paredown:{name}".encode()).digest()
        self._halves = tuple(int.from_bytes(digest[i : i + 4], "big", signed=True) for i in (0, 4))
        self._where, self._me, self._since = where, this_process(), int(time.time())
        self._token = secrets.token_hex(4)

    def __call__(self, connection: Any, record: object) -> None:
        cursor = connection.cursor()
        try:
            # 63 bytes are kept: the host, which may be cut, comes last
            name = f"paredown {self._me.pid} {self._since} {self._token} {self._me.host}"[:63]
            cursor.execute("SELECT set_config('application_name', %s, false)", (name,))
            # so that the server, too, notices soon that a driver's machine is gone
            for setting, value in (("idle", 30), ("interval", 10), ("count", 3)):
                cursor.execute(f"SELECT set_config('tcp_keepalives_{setting}', %s, false)", (str(value),))
            until = time.monotonic() + _HANDOVER_S
            while not self._taken(cursor):
                if time.monotonic() > until:
                    raise self._refused(cursor)
                time.sleep(0.1)
            connection.commit()  # the lock belongs to the session
        finally:
            cursor.close()

    def _taken(self, cursor: Any) -> bool:
        cursor.execute("SELECT pg_try_advisory_lock(%s::int, %s::int)", self._halves)
        return bool(cursor.fetchone()[0])

    def _refused(self, cursor: Any) -> Exception:
        cursor.execute(
            "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.granted AND "
            "l.locktype = 'advisory' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            "AND l.classid::bigint = %s AND l.objid::bigint = %s AND l.objsubid = 2",
            [half % 2**32 for half in self._halves],
        )
        found = cursor.fetchone()
        words = str(found[0] if found else "").split(" ", 4)
        if len(words) < 5 or words[0] != "paredown":
            return refused(None, self._where)
        if words[3] == self._token:
            return _OwnSessionError("the server still has this process's broken connection")
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(int(words[2])))
        return refused(Holder(words[4], int(words[1]), since), self._where)


class _OwnSessionError(Exception):
    """The lock is held by a connection of this very process, which the server has not noticed to be broken."""


class _Steady:
    """Optuna's database backend, with every call repeated until the server answers again.

    A call may have been done although its answer was lost. Attributes, parameters and intermediate values may be written
    twice; of a new trial and of a trial's state it is looked up whether they were written.

    Args:
        backend: The backend.
        where: The study and its database, for messages.
    """

    def __init__(self, backend: RDBStorage, where: str) -> None:
        self._backend, self._where = backend, where
        self._newest: dict[int, tuple[int, int]] = {}  # by study: id and number of the newest trial

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._backend, name)
        return partial(self._repeated, attribute) if callable(attribute) else attribute

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        newest = self._newest.get(study_id)
        if newest is None:
            trials = self._repeated(self._backend._get_trials, study_id, None, set(), -1)
            newest = max(((t._trial_id, t.number) for t in trials), default=(-1, -1))
        tried = False

        def create() -> FrozenTrial:
            nonlocal tried
            written = self._backend._get_trials(study_id, None, set(), newest[0]) if tried else []
            tried = True
            return written[-1] if written else self._backend._create_new_trial(study_id, template_trial)

        trial: FrozenTrial = self._repeated(create)
        if (
            trial.number != newest[1] + 1
        ):  # this is the only writer: those between are earlier tries of Optuna's own
            for lost in self._repeated(self._backend._get_trials, study_id, None, set(), newest[0]):
                if lost.number < trial.number:
                    self.set_trial_state_values(lost._trial_id, TrialState.FAIL)
        self._newest[study_id] = trial._trial_id, trial.number
        return trial

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        tried = False

        def change() -> bool:
            nonlocal tried
            if tried and self._backend.get_trial(trial_id).state == state:
                return True
            tried = True
            return self._backend.set_trial_state_values(trial_id, state, values)

        return bool(self._repeated(change))

    def _repeated(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Calls, again after each error that a restart of the server can be the reason of.

        Raises:
            StudyError: The server is away for `OUTAGE_S`, or another driver took over the study meanwhile.
        """
        began, pause_s = None, _FIRST_PAUSE_S
        while True:
            try:
                answer = call(*arguments, **named)
            except Exception as error:
                if not _is_outage(error):
                    if isinstance(error, StorageInternalError):
                        raise StudyError(
                            f"cannot write {self._where}: {reason(error)}. All trials that were recorded are safe there"
                        ) from error
                    raise
                cause = reason(error)
                if began is None:
                    began = time.monotonic()
                    _LOG.warning(
                        "no connection to %s (%s); trying again for up to %.0f min",
                        self._where,
                        cause,
                        OUTAGE_S / 60,
                    )
                if time.monotonic() - began + pause_s > OUTAGE_S:
                    raise StudyError(
                        f"no connection to {self._where} for {OUTAGE_S:.0f} s ({cause}). All trials that were recorded "
                        "are safe in the database; those that ran just now are proposed again: run the same command "
                        "once it is back"
                    ) from error
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            if began is not None:
                _LOG.warning("%s is back after %.0f s", self._where, time.monotonic() - began)
            return answer


def _is_outage(error: BaseException | None) -> bool:
    """Whether the server may answer later. Errors are known by name: each driver has classes of its own."""
    while error is not None:
        original = getattr(error, "orig", None)  # the driver's error within SQLAlchemy's
        if type(original or error).__module__.startswith("sqlite3"):
            return "locked" in str(error)
        if (
            _OUTAGES & {kind.__name__ for kind in type(error).__mro__}
            or getattr(original, "sqlstate", "") == _READ_ONLY
        ):
            return True
        error = error.__cause__
    return False


def reason(error: BaseException) -> str:
    """Returns the first line of what the driver said, without secrets."""
    while error.__cause__ is not None:
        error = error.__cause__
    return redact_text(str(error)).strip().partition("\n")[0][:200] or type(error).__name__
