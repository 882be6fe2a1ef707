import subprocess
import sys

import pytest

from search.tracking.base import NoTracker
from search.tracking.testing import TrackerConformance


class TestNoTracker(TrackerConformance):
    @pytest.fixture
    def make(self):
        return NoTracker


def test_importing_the_package_does_not_import_mlflow():
    code = (
        "import sys, search.tracking.base, search.tracking.mlflow_tracker, search.tracking.mlflow_record;"
        "print([m for m in ('mlflow', 'torch', 'sklearn', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
