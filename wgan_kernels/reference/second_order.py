"""What ``second_order`` has to equal: PyTorch's own double backward."""

import contextlib


@contextlib.contextmanager
def second_order():
    """Changes nothing."""
    yield
