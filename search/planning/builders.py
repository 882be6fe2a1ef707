"""What builds models, as a digest: what older code has built must not be taken for what this code would build."""

import inspect
from collections.abc import Iterable
from importlib import metadata, resources
from pathlib import Path

from spaces.digest import digest_of
from spaces.stages.stage import Stage

_LIBRARIES = ("numpy", "onnx", "onnxruntime", "torch", "torch-pruning")


def builders_digest(stages: Iterable[Stage]) -> str:
    """Returns a digest of the code of the stages, of all that they may use here, and of the libraries' versions."""
    room = Path(str(resources.files("spaces")))
    own = {inspect.getsourcefile(type(stage)) for stage in stages}
    files = sorted({*room.rglob("*.py"), *(Path(file) for file in own if file is not None)})
    versions = [(name, _version(name)) for name in _LIBRARIES]
    return digest_of(versions, *(file.read_bytes() for file in files))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
