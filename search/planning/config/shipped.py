"""The configs that come with the package."""

from importlib import resources
from pathlib import Path


def shipped() -> Path:
    """Returns the folder of the configs that come with the package: the one beside this very package.

    Importing `conf` may find a folder of that name in the working directory instead.
    """
    return Path(str(resources.files("search"))).parent / "conf"
