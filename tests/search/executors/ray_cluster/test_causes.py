import pytest

from search.executors.ray_cluster.causes import cause_of, is_lost_node, is_of_start, is_unreachable

DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: W
\tactor_id: 769eda75
\tpid: 21355
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: """
LOST = "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) ..."
NODE = """The actor died unexpectedly before finishing this task.
\tclass_name: W
\tpid: 4712
The actor died because its node has died. Node Id: d762
\tthe actor's node was terminated unexpectedly: health check failed due to missing too many heartbeats"""
INIT = """The actor died because of an error raised in its creation task, \x1b[36mray::W.__init__()\x1b[39m (pid=1)
           ^^^^^^^^^^^^^^^
  File "/tmp/causes.py", line 5, in __init__
    if bad: raise ValueError("bad init")
            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
ValueError: bad init
second line"""
TASK = """\x1b[36mray::weird()\x1b[39m (pid=21593, ip=192.0.2.2)
  File "/tmp/causes.py", line 34, in weird
    def weird(): raise Weird(1,2)
                 ^^^^^^^^^^^^^^^^
Weird: 1"""


def error(name, text, **attributes):
    """An error as if it were of Ray."""
    made = type(name, (Exception,), {"__module__": "ray.exceptions"})(text)
    vars(made).update(attributes)
    return made


@pytest.mark.parametrize(
    ("raised", "text"),
    [
        (error("RayTaskError", TASK, cause=KeyError("missing key")), "KeyError: 'missing key'"),
        (error("RayTaskError", TASK, cause=error("RayError", "Exception isn't serializable")), "Weird: 1"),
        (error("RayTaskError", TASK), "Weird: 1"),
        (error("ActorDiedError", INIT, _actor_init_failed=True), "ValueError: bad init second line"),
        (error("ActorDiedError", DIED + LOST), "the worker process died: it was killed, ran out of memory or crashed in native code"),
        (error("ActorDiedError", DIED + "Worker exits unexpectedly. Worker exits with an exit code 3."), "Worker exits unexpectedly. Worker exits with an exit code 3."),
        (error("ActorDiedError", NODE), "The actor died because its node has died. Node Id: d762"),
        (error("OutOfMemoryError", "Task was killed due to the node running low on memory.\nMemory on the node was 1.2GB / 1.2GB.\nMore."), "Task was killed due to the node running low on memory."),
        (error("WorkerCrashedError", "The worker died unexpectedly while executing this task. Check python-core-worker-*.log files"), "The worker died unexpectedly while executing this task."),
        (error("RayError", ""), "RayError"),
        (ValueError("plain\ntext"), "ValueError: plain text"),
    ],
)  # fmt: skip
def test_a_cause_is_one_line_without_colours_and_advice(raised, text):
    assert cause_of(raised) == text


def test_a_long_cause_is_cut():
    assert len(cause_of(ValueError("x" * 5000))) == 500


def test_kinds_are_told_apart():
    assert is_lost_node(error("ActorDiedError", NODE))
    assert is_lost_node(error("ActorDiedError", DIED, preempted=True))
    assert not is_lost_node(error("ActorDiedError", DIED + LOST))
    assert is_of_start(error("ActorDiedError", INIT, _actor_init_failed=True))
    assert is_of_start(error("RuntimeEnvSetupError", "Failed"))
    assert not is_of_start(error("ActorDiedError", DIED + LOST, _actor_init_failed=False))
    assert is_unreachable(error("ActorUnavailableError", "The actor is temporarily unavailable"))
    assert not is_unreachable(error("ActorDiedError", NODE))
