"""One local Ray for all tests in this folder: starting one takes seconds."""

import pytest

from hamscope_hpc.cluster import start_ray


@pytest.fixture(scope="session")
def local_ray():
    """Be connected to Ray; programs under test find the connection and use it.

    It believes that it has three CPUs, so that three workers find room on two.  It collects its metrics every second,
    not every ten, so that a test need not wait for them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        with start_ray(cpus=3):
            yield
