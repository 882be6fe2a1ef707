"""Ten small networks of the zoo sweep (`tests/benchmarks/zoo_sweep.py`), none of which needs another library."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SWEEP = Path(__file__).parents[1] / "benchmarks" / "zoo_sweep.py"
NETWORKS = (
    *("convnext", "embeddings", "gnn", "lstm", "res2net"),
    *("shvit", "sk_attention", "unet", "vit", "window_attention"),
)


@pytest.mark.slow
def test_ten_networks_are_exported_and_quantized_and_pruned_or_refused(tmp_path):
    names = [f"own:{name}" for name in NETWORKS]
    command = [sys.executable, str(SWEEP), str(tmp_path), "--only", *names]
    swept = subprocess.run(command, capture_output=True, text=True, check=False)
    assert swept.returncode == 0, swept.stdout + swept.stderr
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["network"] for row in rows] == names
    for row in rows:
        states = {step: found["state"] for step, found in row["steps"].items()}
        assert states.pop("prune") in ("ok", "refused")
        assert states == dict.fromkeys(("load", "export", "default", "low_bits", "operators"), "ok")
        assert not [found["printed"] for found in row["steps"].values() if "printed" in found]
    assert "not ok" in swept.stdout
