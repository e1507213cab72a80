"""One SLURM for all tests in this folder, and the undisturbed results that the disturbed ones have to equal."""

import pytest
from slurm_cluster import Cluster


@pytest.fixture(scope="session")
def cluster():
    with Cluster() as started:
        yield started


@pytest.fixture(autouse=True)
def no_job_is_left(request):
    """Whatever a test leaves is not in the way of the next."""
    yield
    if "cluster" in request.fixturenames:
        request.getfixturevalue("cluster").end_jobs()
