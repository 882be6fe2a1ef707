"""A digest of the code that builds models: part of cache keys, so that output of other code is not reused."""

from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from spaces.code_digest import LIBRARIES, code_digest, version_of
from spaces.digest import digest_of
from spaces.stages.stage import Stage


def builders_digest(stages: Iterable[Stage]) -> str:
    """Returns a digest of the stages' classes, all Python files of `spaces`, and the libraries' versions."""
    package = Path(str(resources.files("spaces")))
    versions = [(name, version_of(name)) for name in LIBRARIES]
    code = [code_digest(type(stage)) for stage in stages]
    return digest_of(versions, sorted(code), *(file.read_bytes() for file in sorted(package.rglob("*.py"))))
