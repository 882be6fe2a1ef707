"""Relative unit costs on measured boards: prior means for boards with few measurements of their own.

Each is the result of `evaluators.cost.fit.shrinkage.reference_board` on one system of MLPerf Tiny v0.5 to
v1.3, closed division (github.com/mlcommons/tiny_results_v*, Apache-2.0), as printed by
`python tests/benchmarks/tiny_latency.py --constants`. The networks are the benchmark's four reference
networks; a system with a single result has no ratio.
"""

from evaluators.cost.fit.costs import ReferenceBoard

COSTS = ("conv", "pointwise", "fully_connected", "depthwise", "activation_byte", "weight_byte", "kernel")
# Board | version, else benchmark round | runtime | dead channels | natural logarithms of COSTS, mean zero
_TABLE = """
L4R5ZI | v0.5 | TensorFlow Lite Micro | kept | -0.95 -1.12 -1.35 -1.13 1.75 -2.74 5.55
H7A3ZI | v0.7 | X-CUBE-AI | kept | -1.23 -0.87 -1.00 -0.97 0.31 -2.18 5.93
U575ZI | v0.7 | X-CUBE-AI | kept | -1.28 -0.82 -0.96 -0.92 0.10 -2.13 6.01
L4R5ZI | v0.7 | X-CUBE-AI | kept | -1.32 -0.74 -0.93 -0.84 -0.09 -2.18 6.10
DISCOF | v0.7 | Plumerai | kept | -1.32 -1.03 -1.01 -1.10 0.47 -1.87 5.87
L4R5ZI | v0.7 | Plumerai | kept | -1.37 -0.70 -1.07 -0.96 0.63 -2.37 5.85
XG24DK | v0.7 | TensorFlow Lite Micro | kept | -1.01 -0.89 -1.09 -0.97 0.62 -2.48 5.83
L4R5ZI | v1.0 | microTVM CMSIS-NN | kept | -1.02 -0.95 -1.11 -1.01 0.77 -2.48 5.80
L4R5ZI | v1.0 | microTVM | removed | -1.67 -1.46 -1.22 -1.30 1.84 -1.89 5.70
H7A3ZI | v1.0 | X-CUBE-AI | kept | -1.29 -0.96 -1.03 -1.06 0.54 -2.07 5.87
U575ZI | v1.0 | X-CUBE-AI | kept | -1.31 -0.95 -1.02 -1.05 0.51 -2.05 5.88
L4R5ZI | v1.0 | X-CUBE-AI | kept | -1.35 -0.94 -1.04 -1.06 0.69 -2.15 5.85
GAP9EV | v1.0 | greenwaves-technologies | kept | -2.46 -1.17 -1.74 -1.56 -0.83 -3.08 10.84
GAP9EV | v1.0 | greenwaves-technologies | kept | -2.46 -1.17 -1.74 -1.56 -0.83 -3.08 10.83
BU585I | v1.0 | Plumerai | kept | -1.44 -1.01 -1.02 -1.11 0.33 -1.61 5.87
DISCOF | v1.0 | Plumerai | kept | -1.27 -1.00 -1.00 -1.06 0.38 -1.95 5.90
L4R5ZI | v1.0 | Plumerai | kept | -1.35 -0.63 -1.06 -0.91 0.45 -2.38 5.88
XG24DK | v1.0 | TensorFlow Lite Micro | kept | -1.41 -1.11 -1.05 -1.16 0.40 -1.48 5.82
NDP912 | v1.0 | syntiant | kept | -1.11 -0.94 -1.01 -0.99 0.38 -2.23 5.91
NDP912 | v1.0 | syntiant | kept | -1.11 -0.87 -0.98 -0.92 0.14 -2.24 5.98
H7A3ZI | 7.3  | X-CUBE-AI | kept | -1.29 -0.95 -1.02 -1.05 0.51 -2.07 5.88
H7A3ZI | 8.0  | X-CUBE-AI | kept | -1.29 -1.02 -1.03 -1.09 0.64 -2.06 5.85
L4R5ZI | v1.1 | microTVM CMSIS-NN | kept | -1.02 -0.95 -1.11 -1.01 0.76 -2.48 5.80
L4R5ZI | v1.1 | microTVM | removed | -1.67 -1.48 -1.23 -1.31 1.86 -1.86 5.69
L4R5ZI | 7.3  | X-CUBE-AI | kept | -1.31 -0.90 -1.03 -1.03 0.55 -2.16 5.88
L4R5ZI | 8.0  | X-CUBE-AI | kept | -1.34 -0.93 -1.03 -1.05 0.60 -2.12 5.87
H7A3ZI | 8.1  | X-CUBE-AI | removed | -1.40 -1.27 -1.09 -1.16 0.98 -1.89 5.84
L4R5ZI | 8.1  | X-CUBE-AI | removed | -1.34 -1.19 -1.08 -1.12 0.95 -2.06 5.85
U575ZI | 8.1  | X-CUBE-AI | removed | -1.42 -1.22 -1.07 -1.14 0.81 -1.81 5.85
L4R5ZI | v1.1 | ONNC | removed | -1.29 -1.38 -1.13 -1.19 1.34 -2.13 5.79
L4R5ZI | v1.1 | ONNC | removed | -1.39 -1.29 -1.16 -1.18 1.48 -2.23 5.77
DISCOF | v1.1 | HALE | kept | -1.24 -0.98 -1.09 -1.07 0.89 -2.32 5.81
G0B1RE | v1.1 | HALE | kept | -1.22 -0.54 -1.08 -0.82 0.28 -2.51 5.89
H7A3ZI | v1.1 | HALE | kept | -1.21 -0.86 -1.05 -0.99 0.55 -2.31 5.87
L4R5ZI | v1.1 | HALE | kept | -1.26 -0.77 -1.03 -0.94 0.37 -2.29 5.92
U575ZI | v1.1 | HALE | kept | -1.26 -0.81 -1.01 -0.95 0.35 -2.24 5.92
L4R5ZI | v1.1 | microTVM CMSIS-NN | kept | -1.07 -0.98 -1.02 -1.01 0.40 -2.22 5.89
L4R5ZI | v1.1 | microTVM | kept | -1.35 -0.78 -1.03 -0.98 0.49 -2.24 5.89
DISCOF | v1.1 | Plumerai | removed | -1.25 -1.18 -1.11 -1.10 1.07 -2.26 5.82
H7A3ZI | v1.1 | Plumerai | removed | -1.22 -1.21 -1.11 -1.11 1.08 -2.26 5.82
L4R5ZI | v1.1 | Plumerai | removed | -1.25 -1.27 -1.15 -1.14 1.39 -2.34 5.77
U575ZI | v1.1 | Plumerai | removed | -1.41 -1.35 -1.11 -1.19 1.04 -1.81 5.82
SNAPDR | v1.2 | Qualcomm | removed | -2.87 -1.54 -1.76 -1.55 1.36 1.19 5.18
EKRA8D | v1.2 | Renesas | kept | -2.06 -1.48 -1.47 -1.56 1.84 -0.62 5.35
H7A3ZI | 9.0  | X-CUBE-AI | removed | -1.35 -1.43 -1.13 -1.22 1.29 -1.95 5.79
L4R5ZI | 9.0  | X-CUBE-AI | removed | -1.32 -1.45 -1.12 -1.22 1.14 -1.83 5.80
U575ZI | 9.0  | X-CUBE-AI | removed | -1.30 -1.42 -1.11 -1.21 1.13 -1.90 5.81
ASUSTI | v1.2 | ONNC | kept | -0.46 -0.87 -1.26 -0.88 0.70 -2.90 5.67
DISCOF | v1.2 | HALE | kept | -1.20 -0.90 -1.07 -1.01 0.70 -2.35 5.84
G0B1RE | v1.2 | HALE | kept | -1.18 -0.84 -1.08 -0.98 0.64 -2.40 5.84
H7A3ZI | v1.2 | HALE | kept | -1.18 -1.25 -1.00 -1.15 0.00 -1.31 5.88
H7A3ZI | v1.2 | HALE | kept | -1.24 -0.86 -1.05 -0.99 0.57 -2.30 5.87
L4R5ZI | v1.2 | HALE | kept | -1.30 -0.87 -1.04 -1.01 0.56 -2.21 5.88
U575ZI | v1.2 | HALE | kept | -1.33 -0.97 -1.06 -1.08 0.81 -2.19 5.83
RENESA | v1.2 | HALE | kept | -1.05 -1.02 -1.00 -1.02 0.34 -2.15 5.91
RENESA | v1.2 | HALE | kept | -1.18 -1.00 -0.99 -1.03 0.34 -2.05 5.91
NEXTGE | v1.3 | Qualcomm | removed | -2.76 -1.16 -1.60 -1.34 0.27 1.23 5.36
L4R5ZI | 10.2 | X-CUBE-AI | removed | -1.28 -1.41 -1.11 -1.20 1.20 -2.00 5.80
U3C5ZI | v1.3 | X-CUBE-AI | removed | -1.38 -1.31 -1.22 -1.19 1.82 -2.42 5.71
U575ZI | 10.2 | X-CUBE-AI | removed | -1.29 -1.39 -1.11 -1.19 1.18 -2.00 5.81
"""


def _board(line: str) -> ReferenceBoard:
    name, version, runtime, dead, costs = (part.strip() for part in line.split("|"))
    log_costs = dict(zip(COSTS, map(float, costs.split()), strict=True))
    return ReferenceBoard(name, runtime, f"{runtime} {version}", log_costs, dead == "removed")


REFERENCE_BOARDS: tuple[ReferenceBoard, ...] = tuple(map(_board, _TABLE.strip().splitlines()))
