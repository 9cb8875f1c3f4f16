"""Settings for all tests: Hypothesis without deadlines, GPU tests only where there is a GPU."""

import pytest
from hypothesis import settings

# A deadline per example measures the machine, not the code.
settings.register_profile("d2m", deadline=None, print_blob=True)
settings.load_profile("d2m")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` on a machine without one."""
    gpu_tests = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_tests and not _has_cuda():
        for item in gpu_tests:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _has_cuda() -> bool:
    # Two seconds to import: only when a test depends on the answer.
    import torch

    return torch.cuda.is_available()
