import pytest

from search.executors.ray import RayExecutor
from search.study.testing import ExecutorConformance
from spaces.errors import ConfigError

pytestmark = [
    pytest.mark.slow,
    # Ray leaves sockets and files to the garbage collector, and warns of its own future changes
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class TestRayExecutor(ExecutorConformance):
    @pytest.fixture
    def executor(self):
        return RayExecutor(workers=2, max_retries=0)


def test_more_cpus_than_the_cluster_has_is_an_error():
    executor = RayExecutor(cpus_per_trial=10_000)
    try:
        with pytest.raises(ConfigError, match="no trial could ever start"):
            executor.start(None)
    finally:
        executor.close()
