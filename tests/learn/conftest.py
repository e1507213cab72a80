"""Small networks on one thread: on two, a busy machine makes every step wait for both, many times slower."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """For the tests of this folder."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
