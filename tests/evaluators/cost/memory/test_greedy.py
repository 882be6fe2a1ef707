from hypothesis import given
from hypothesis import strategies as st

from evaluators.cost.memory.greedy import Buffer, place


@st.composite
def several_buffers(draw):
    buffers = []
    for i in range(draw(st.integers(1, 12))):
        first, n_bytes = draw(st.integers(0, 9)), draw(st.sampled_from([1, 10, 10, 10, 25, 40]))
        buffers.append(Buffer(f"b{i}", n_bytes, first, first + draw(st.integers(0, 4))))
    return buffers


def overlap(a, b):
    return a.first <= b.last and b.first <= a.last


@given(several_buffers())
def test_live_buffers_do_not_overlap(buffers):
    arena = place([b] for b in buffers)
    for i, a in enumerate(buffers):
        for b in buffers[:i]:
            apart = (
                arena.offsets[a.name] + a.n_bytes <= arena.offsets[b.name]
                or arena.offsets[b.name] + b.n_bytes <= arena.offsets[a.name]
            )
            assert apart or not overlap(a, b)
    most = max(sum(b.n_bytes for b in buffers if b.first <= step <= b.last) for step in range(14))
    assert arena.n_bytes >= most
    assert arena.n_bytes == max(arena.offsets[b.name] + b.n_bytes for b in buffers)


@given(several_buffers())
def test_each_buffer_is_in_the_first_gap(buffers):
    """No buffer could have a lower offset, given the buffers that are placed before it."""
    arena = place([b] for b in buffers)
    placed = []
    for _, b in sorted(enumerate(buffers), key=lambda item: (-item[1].n_bytes, -item[0])):
        others = [(arena.offsets[o.name], o.n_bytes) for o in placed if overlap(o, b)]
        for offset in range(arena.offsets[b.name]):
            assert any(at < offset + b.n_bytes and offset < at + n for at, n in others)
        placed.append(b)


def test_of_equal_buffers_the_last_is_placed_first():
    """The first layers of the visual wake words network in KiB: TensorFlow Lite Micro needs 72, not 63."""
    sizes = [27, 18, 18, 36, 9, 18, 18, 18]
    arena = place([Buffer(f"t{i}", n, max(i - 1, 0), i)] for i, n in enumerate(sizes))
    assert arena.n_bytes == 72
    assert arena.offsets["t3"] == 0
    assert (arena.offsets["t2"], arena.offsets["t1"]) == (36, 54)


def test_a_group_begins_at_one_offset_and_shrinks():
    """A buffer of 40 bytes is overwritten by one of 10, so 30 of its bytes are free again afterwards."""
    group = [Buffer("large", 40, 0, 1), Buffer("small", 10, 1, 3)]
    arena = place([group, [Buffer("during", 5, 1, 1)], [Buffer("after", 30, 2, 3)]])
    assert arena.offsets == {"large": 0, "small": 0, "after": 10, "during": 40}
    assert arena.n_bytes == 45
