"""The sizes of the splits where nothing is trained."""

_SPLITS = {"calibration": (0.2, 512), "validation": (0.4, 1000), "test": (0.4, 2000)}
"""Share of the examples, and most: 1,000 images tell 2 points of accuracy from none."""


def split_sizes(n: int) -> dict[str, int]:
    """Returns the sizes of the splits of so many examples, by key of the config."""
    return {f"task.{name}": min(int(n * share), most) for name, (share, most) in _SPLITS.items()}
