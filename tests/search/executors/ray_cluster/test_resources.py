import pytest

from search.executors.ray_cluster.resources import Node, TrialResources, cluster_text, nodes_of
from spaces.errors import ConfigError

GIB = 2**30
SMALL = Node("10.0.0.1", {"CPU": 2.0, "memory": 4.0 * GIB, "object_store_memory": 1.0, "node:10.0.0.1": 1.0})
LARGE = Node("10.0.0.2", {"CPU": 8.0, "GPU": 2.0, "memory": 32.0 * GIB, "bench": 1.0})


def read(cpus=1.0, gpus=0.0, memory=None, custom=None):
    return TrialResources.read(cpus, gpus, memory, custom)


def test_options_are_those_of_ray():
    options = read(2, 0.5, "2 GiB", {"bench": 1}).options()
    assert options == {"num_cpus": 2.0, "num_gpus": 0.5, "memory": 2 * GIB, "resources": {"bench": 1.0}}
    assert "memory" not in read().options()


@pytest.mark.parametrize(
    ("resources", "slots"),
    [
        (read(), 10),
        (read(3), 2),  # of the 10 CPUs in all 9 would do for three, but a trial runs on one node
        (read(0.5), 20),
        (read(0, 0.25), 8),
        (read(1, 0, "4 GiB"), 9),
        (read(0, 0, None, {"bench": 1}), 1),
        (read(0, 0, None, {"bench": 0.1}), 10),
    ],
)
def test_slots_are_counted_node_by_node(resources, slots):
    assert resources.slots([SMALL, LARGE], None) == slots
    assert resources.slots([SMALL, LARGE], 3) == min(3, slots)


def test_what_no_node_could_run_is_refused_with_what_there_is():
    with pytest.raises(ConfigError) as error:
        read(9, 1, "1 GiB").slots([SMALL, LARGE], None)
    text = str(error.value)
    assert "executor.cpus_per_trial=9, executor.gpus_per_trial=1, executor.memory_per_trial=1 GiB" in text
    assert (
        "The cluster has 2 nodes: 10.0.0.1: 2 CPUs, 4.0 GiB memory; 10.0.0.2: 8 CPUs, 2 GPUs, 32.0 GiB memory, 1 bench"
        in text
    )


def test_a_custom_resource_that_no_node_has_is_refused():
    with pytest.raises(ConfigError, match=r"executor\.resources_per_trial\.edge=1: no node"):
        read(custom={"edge": 1}).slots([SMALL, LARGE], 2)


def test_without_any_resource_the_number_of_workers_must_be_given():
    assert read(0).slots([SMALL], 256) == 256
    with pytest.raises(ConfigError, match=r"executor\.workers must be given"):
        read(0).slots([SMALL], None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cpus": -1}, r"executor\.cpus_per_trial must be a number of at least 0"),
        ({"gpus": True}, r"executor\.gpus_per_trial must be a number"),
        ({"gpus": float("inf")}, r"executor\.gpus_per_trial must be a number"),
        ({"cpus": 1.5}, "a fraction below 1 or a whole number"),
        ({"memory": "much"}, r"executor\.memory_per_trial"),
        ({"custom": {"bench": "one"}}, r"executor\.resources_per_trial\.bench must be a number"),
        ({"custom": {"GPU": 1}}, r"that is executor\.gpus_per_trial"),
    ],
)
def test_wrong_amounts_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        read(**arguments)


def test_dead_nodes_are_left_out():
    listed = [
        {"NodeManagerAddress": "a", "NodeID": "1", "Alive": True, "Resources": {"CPU": 1}},
        {"NodeManagerAddress": "b", "NodeID": "2", "Alive": False, "Resources": {}},
    ]
    assert nodes_of(listed) == [Node("a", {"CPU": 1.0}, "1")]


def test_a_large_cluster_is_summed_up():
    assert cluster_text([SMALL] * 20).endswith("; and 12 more")
    assert cluster_text([]) == "The cluster has no living node"
