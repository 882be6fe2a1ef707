"""A network as a picture: a row for each layer with its bits, the channels that are left, time, bytes and noise."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from search.record.results import TrialRecord
from search.report.findings import numbers
from search.report.findings.layers import IDENTICAL_DB, KEYS, key_of, layers
from search.report.page.bars import bar
from search.report.page.markup import esc, table

if TYPE_CHECKING:
    from evaluators.cost.cost import DeviceCosts
    from evaluators.cost.graph.kernel import Kernel

_MOST_ROWS = 40
_T = TypeVar("_T")


@dataclass(frozen=True)
class Layer:
    """One row.

    Attributes:
        name: Name of the layer.
        kind: What it computes.
        bits: Bits of its weights; 0 without weights, None where they are not known.
        kept: Channels before and after pruning.
        ms: Modelled time.
        weight_bytes: Bytes of its weights.
        sqnr_db: Signal-to-quantization-noise ratio in dB.
    """

    name: str
    kind: str
    bits: int | None
    kept: tuple[int, int] | None = None
    ms: float | None = None
    weight_bytes: int = 0
    sqnr_db: float | None = None


def picture(
    record: TrialRecord, costs: "DeviceCosts | None" = None, cut: Mapping[str, Sequence[int]] | None = None
) -> str:
    """Returns the picture as a table with bars; empty if nothing is known of the layers.

    Args:
        record: The trial.
        costs: Its costs on a device, whose kernels are the rows; without them the compared layers are.
        cut: Layers to their channels before and after pruning.
    """
    noise = _noise(record)
    rows = _of_kernels(costs, noise, cut or {}) if costs is not None else _of_layers(record, noise, cut or {})
    if not rows:
        return ""
    shown = _heaviest(rows)
    left_out = (
        f"<p>The {len(shown)} of {len(rows)} with most time and bytes.</p>" if len(shown) < len(rows) else ""
    )
    return _drawn(shown, key_of(record)) + left_out


def _noise(record: TrialRecord) -> dict[str, float]:
    """Returns the SQNR in dB by layer, those of layers that are equal to the float model's included."""
    key = key_of(record)
    found = ((str(e["layer"]), e.get(key)) for e in layers(record)) if key is not None else ()
    return {name: float(value) for name, value in found if isinstance(value, int | float)}


def _of_kernels(
    costs: "DeviceCosts", noise: Mapping[str, float], cut: Mapping[str, Sequence[int]]
) -> list[Layer]:
    times_ms = costs.kernel_ms()
    return [
        Layer(
            k.name,
            k.kind.replace("_", " "),
            k.weight_bits,
            _pair(_found(k, cut)),
            None if times_ms is None else times_ms[i],
            k.weight_bytes,
            _found(k, noise),
        )
        for i, k in enumerate(costs.graph.kernels)
    ]


def _found(kernel: "Kernel", by_layer: Mapping[str, _T]) -> _T | None:
    """Returns what is known of a kernel by the name of its layer, or of its layer's weight."""
    for name in (kernel.name, *kernel.constants, *kernel.nodes):
        for known in (name, f"{name}.weight"):
            if known in by_layer:
                return by_layer[known]
    return None


def _of_layers(
    record: TrialRecord, noise: Mapping[str, float], cut: Mapping[str, Sequence[int]]
) -> list[Layer]:
    names = dict.fromkeys([*(str(e["layer"]) for e in layers(record)), *cut])
    kinds = {str(e["layer"]): str(e.get("op") or "") for e in layers(record)}
    return [Layer(n, kinds.get(n, ""), None, _pair(cut.get(n)), sqnr_db=noise.get(n)) for n in names]


def _pair(widths: Sequence[int] | None) -> tuple[int, int] | None:
    return None if widths is None else (int(widths[0]), int(widths[1]))


def _heaviest(rows: Sequence[Layer]) -> list[Layer]:
    """Returns the rows with most time and bytes, in the network's order."""
    ms, size = sum(r.ms or 0.0 for r in rows) or 1.0, sum(r.weight_bytes for r in rows) or 1
    ranked = sorted(range(len(rows)), key=lambda i: -((rows[i].ms or 0.0) / ms + rows[i].weight_bytes / size))
    return [rows[i] for i in sorted(ranked[:_MOST_ROWS])]


# -- drawing -------------------------------------------------------------------------------------------------


def _drawn(rows: Sequence[Layer], key: str | None) -> str:
    columns = [
        ("weights\nbits", any(r.bits is not None for r in rows), _bits),
        ("channels\nkept", any(r.kept for r in rows), _kept),
        ("time\nms, modelled", any(r.ms for r in rows), _time(rows)),
        ("weights\nsize", any(r.weight_bytes for r in rows), _bytes(rows)),
        (f"noise\n{KEYS.get(key or '', '')}", any(r.sqnr_db is not None for r in rows), _noise_bar(rows)),
    ]
    shown = [(head, cell) for head, is_known, cell in columns if is_known]
    if not shown:
        return ""
    cells = [
        [
            f'<code>{esc(r.name)}</code> <span class="quiet">{esc(r.kind)}</span>',
            *(cell(r) for _, cell in shown),
        ]
        for r in rows
    ]
    return table(["layer", *(head for head, _ in shown)], cells, css="layers", name="Layers of the network")


def _bits(row: Layer) -> str:
    if row.bits is None:
        return "–"
    return f'<span class="bits b{row.bits}">{row.bits or "–"}</span>'


def _kept(row: Layer) -> str:
    if row.kept is None:
        return "–"
    before, after = row.kept
    share = 100 * after / before if before else 0.0
    return (
        f'<span class="kept" aria-hidden="true"><b style="width:{share:.0f}%"></b></span>{after} of {before}'
    )


def _time(rows: Sequence[Layer]) -> Callable[[Layer], str]:
    most, total = max((r.ms or 0.0 for r in rows), default=0.0), sum(r.ms or 0.0 for r in rows)

    def cell(row: Layer) -> str:
        if not row.ms:
            return '<span class="quiet">–</span>'
        return f"{bar(row.ms / most)}{numbers.plain(row.ms)} ({100 * row.ms / total:.0f} %)"

    return cell


def _bytes(rows: Sequence[Layer]) -> Callable[[Layer], str]:
    most = max((r.weight_bytes for r in rows), default=0)

    def cell(row: Layer) -> str:
        if not row.weight_bytes:
            return '<span class="quiet">–</span>'
        return f"{bar(row.weight_bytes / most, 'second')}{esc(numbers.quantity(row.weight_bytes, 'bytes'))}"

    return cell


def _noise_bar(rows: Sequence[Layer]) -> Callable[[Layer], str]:
    """Returns how noise is drawn: in the length of a bar 20 dB are a factor of 10."""
    known = [r.sqnr_db for r in rows if r.sqnr_db is not None and r.sqnr_db < IDENTICAL_DB]
    least = min(known, default=0.0)

    def cell(row: Layer) -> str:
        if row.sqnr_db is None:
            return '<span class="quiet">–</span>'
        if row.sqnr_db >= IDENTICAL_DB:
            return f"{bar(0.0, 'aside')}as in float"
        return f"{bar(10 ** ((least - row.sqnr_db) / 20), 'aside')}{row.sqnr_db:.1f} dB"

    return cell
