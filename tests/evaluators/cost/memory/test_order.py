"""Tests the order search against all orders, and the placement against a simulated memory."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from evaluators.cost.graph import Geometry, Kernel, OpGraph
from evaluators.cost.memory import plan_memory
from evaluators.cost.memory.liveness import file_order, peak_bytes, problem_of
from evaluators.cost.memory.order import best_order
from evaluators.devices.device import Deployment

CHANNELS = 4
deployments = st.builds(
    Deployment,
    weights=st.sampled_from(["flash", "stream"]),
    arena=st.sampled_from(["liveness", "greedy"]),
    in_place=st.sampled_from([(), ("elementwise",), ("elementwise", "depthwise")]),
    alignment_bytes=st.sampled_from([1, 16]),
)


@st.composite
def graphs(draw, max_kernels=6):
    """Kernels that each read some earlier tensors and write one or two."""
    sizes = {"x": draw(st.integers(1, 100)), "z": draw(st.integers(1, 100))}
    kernels = []
    for i in range(draw(st.integers(1, max_kernels))):
        reads = tuple(draw(st.lists(st.sampled_from(list(sizes)), min_size=1, max_size=3, unique=True)))
        kind = draw(st.sampled_from(["elementwise", "depthwise", "other"]))
        writes = (f"t{i}", f"u{i}") if draw(st.integers(0, 4)) == 0 else (f"t{i}",)
        sizes |= {t: draw(st.integers(1, 100)) for t in writes}
        geometry = Geometry(CHANNELS, CHANNELS, groups=CHANNELS) if kind == "depthwise" else None
        read_bytes = sum(sizes[t] for t in reads)
        weights = draw(st.integers(0, 50))
        kernels.append(
            Kernel(f"k{i}", "Op", kind, "int8", 0, weights, reads, writes, read_bytes, 0, geometry=geometry)
        )
    outputs = draw(st.lists(st.sampled_from(list(sizes)), max_size=2, unique=True))
    return OpGraph(tuple(kernels), ("x", "z"), tuple(outputs), sizes, 0, {})


def rounded(n_bytes, deployment):
    return -(-n_bytes // deployment.alignment_bytes) * deployment.alignment_bytes


def first_and_last(graph, order):
    """Per tensor, the first and the last step of its lifetime."""
    first, last = dict.fromkeys(graph.inputs, 0), {}
    for step, k in enumerate(order):
        first |= dict.fromkeys(graph.kernels[k].outputs, step)
        last |= dict.fromkeys((*graph.kernels[k].inputs, *graph.kernels[k].outputs), step)
    last |= {t: len(order) for t in (*graph.outputs, *(t for t in graph.inputs if t not in last))}
    return first, last


def peak_of(graph, deployment, order):
    """The peak memory of an order by its definition: the largest sum of live tensors."""
    first, last = first_and_last(graph, order)
    peak = 0
    for step, k in enumerate(order):
        kernel = graph.kernels[k]
        total = sum(rounded(graph.tensor_bytes[t], deployment) for t in first if first[t] <= step <= last[t])
        total += rounded(kernel.weight_bytes, deployment) if deployment.weights == "stream" else 0
        if kernel.kind in deployment.in_place:
            depthwise = kernel.kind == "depthwise"
            scratch = rounded(-(-kernel.input_bytes // CHANNELS), deployment) if depthwise else 0
            wanted = max(rounded(graph.tensor_bytes[t], deployment) for t in kernel.outputs)
            dying = [rounded(graph.tensor_bytes[t], deployment) for t in kernel.inputs if last[t] == step]
            total -= max(wanted - scratch, 0) if any(size >= wanted for size in dying) else 0
        peak = max(peak, total)
    return peak


def is_valid(graph, order):
    written = set(graph.inputs)
    for k in order:
        if not written.issuperset(graph.kernels[k].inputs):
            return False
        written.update(graph.kernels[k].outputs)
    return sorted(order) == list(range(len(graph.kernels)))


@given(graphs(), deployments)
def test_no_order_is_better(graph, deployment):
    own = tuple(range(len(graph.kernels)))
    orders = [order for order in permutations(own) if is_valid(graph, order)]
    problem = problem_of(graph, deployment)
    for order in orders:
        assert peak_bytes(problem, order) == peak_of(graph, deployment, order)
    result = best_order(problem, own)
    assert result.is_best
    assert is_valid(graph, result.kernels)
    assert peak_bytes(problem, result.kernels) == min(peak_bytes(problem, order) for order in orders)


@given(graphs(max_kernels=12), deployments, st.integers(0, 60), st.booleans())
def test_a_search_with_few_steps_is_never_worse_than_the_file(graph, deployment, steps, every):
    problem = problem_of(graph, deployment)
    own = file_order(problem, graph)
    result = best_order(problem, own, every, steps)
    assert is_valid(graph, result.kernels)
    best = best_order(problem, own)
    peaks = [peak_bytes(problem, order) for order in (best.kernels, result.kernels, own)]
    assert peaks == sorted(peaks)
    if result.is_best and best.is_best:
        assert peaks[0] == peaks[1]


@given(graphs(max_kernels=12), deployments)
def test_ordering_every_segment_does_not_raise_the_peak(graph, deployment):
    problem = problem_of(graph, deployment)
    own = file_order(problem, graph)
    one, every = best_order(problem, own), best_order(problem, own, every=True)
    assert is_valid(graph, every.kernels)
    assert peak_bytes(problem, every.kernels) == peak_bytes(problem, one.kernels)


def test_a_large_graph_is_searched_by_a_beam():
    """Forty independent branches in an unfavourable order: all the wide tensors are written first."""
    sizes = {"x": 1} | {f"w{i}": 100 + i for i in range(40)} | {f"n{i}": 1 for i in range(40)} | {"y": 1}

    def kernel(name, reads, writes):
        return Kernel(name, "Op", "other", "int8", 0, 0, reads, (writes,), 0, 0)

    widen = [kernel(f"a{i}", ("x",), f"w{i}") for i in range(40)]
    narrow = [kernel(f"b{i}", (f"w{i}",), f"n{i}") for i in range(40)]
    join = kernel("join", tuple(f"n{i}" for i in range(40)), "y")
    graph = OpGraph((*widen, *narrow, join), ("x",), ("y",), sizes, 0, {})
    problem = problem_of(graph, Deployment())
    own = file_order(problem, graph)
    assert peak_bytes(problem, own) > 4000
    result = best_order(problem, own)
    # The widest tensor has to be live together with the input and at least the result of its branch.
    assert 139 + 2 <= peak_bytes(problem, result.kernels) <= 139 + 41
    assert result == best_order(problem, own)


@given(graphs(max_kernels=10), deployments, st.sampled_from(["file", "best"]))
def test_buffers_in_the_arena_are_not_overwritten_while_live(graph, deployment, order):
    """Writes names into an arena as the kernels would, and checks that they are there when they are read."""
    deployment = Deployment(
        deployment.weights, order, "greedy", deployment.in_place, deployment.alignment_bytes
    )
    plan = plan_memory(graph, deployment)
    streamed = deployment.weights == "stream"
    arena_bytes = plan.peak_sram_bytes if streamed else plan.peak_activation_bytes
    assert arena_bytes >= plan.live_bytes == peak_of(graph, deployment, plan.order)
    assert all(offset % deployment.alignment_bytes == 0 for offset in plan.offsets.values())
    memory = [""] * arena_bytes

    def write(name, n_bytes):
        offset = plan.offsets[name]
        assert offset + n_bytes <= arena_bytes
        memory[offset : offset + n_bytes] = [name] * n_bytes

    def is_whole(name):
        offset, n_bytes = plan.offsets[name], graph.tensor_bytes[name]
        return memory[offset : offset + n_bytes] == [name] * n_bytes

    for name in graph.inputs:
        write(name, graph.tensor_bytes[name])
    _, last = first_and_last(graph, plan.order)
    alive = set(graph.inputs)
    for step, k in enumerate(plan.order):
        kernel = graph.kernels[k]
        for suffix in ("weights", "scratch"):
            own = f"{kernel.name} ({suffix})"
            if own in plan.timeline[step].live:
                write(own, plan.timeline[step].live[own])
        assert all(is_whole(t) for t in alive)
        for name in kernel.outputs:
            write(name, graph.tensor_bytes[name])
        damaged = [t for t in alive if not is_whole(t)]
        assert len(damaged) <= (kernel.kind in deployment.in_place)
        assert all(t in kernel.inputs and last[t] == step for t in damaged)
        alive = {t for t in (*alive, *kernel.outputs) if last[t] > step}
        assert all(is_whole(t) for t in alive)


@given(graphs(max_kernels=10), deployments)
def test_plan_is_consistent(graph, deployment):
    plan = plan_memory(graph, deployment)
    assert plan == plan_memory(graph, deployment)
    for step in plan.timeline:
        assert sum(step.live.values()) == step.total_bytes
    assert plan.live_bytes == max(step.total_bytes for step in plan.timeline) == sum(plan.peak_live.values())
    assert plan.peak_activation_bytes <= plan.peak_sram_bytes
