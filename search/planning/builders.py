"""What builds models, as a digest: what older code has built must not be taken for what this code would build."""

from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from spaces.code_digest import LIBRARIES, code_digest, version_of
from spaces.digest import digest_of
from spaces.stages.stage import Stage


def builders_digest(stages: Iterable[Stage]) -> str:
    """Returns a digest of the code of the stages, of all that they may use here, and of the libraries' versions."""
    room = Path(str(resources.files("spaces")))
    versions = [(name, version_of(name)) for name in LIBRARIES]
    code = [code_digest(type(stage)) for stage in stages]
    return digest_of(versions, sorted(code), *(file.read_bytes() for file in sorted(room.rglob("*.py"))))
