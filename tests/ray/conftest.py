"""One local Ray of two CPUs for all tests in this folder: starting one takes seconds."""

import pytest

from hamscope_hpc.cluster import start_ray


@pytest.fixture(scope="session")
def local_ray():
    """Be connected to Ray; programs under test find the connection and use it."""
    with start_ray(cpus=2):
        yield
