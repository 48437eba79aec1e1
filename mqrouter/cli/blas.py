"""One thread for numpy's products: how they are split decides how their sums are rounded, and so what is learnt."""

from __future__ import annotations

from contextlib import AbstractContextManager


def one_thread() -> AbstractContextManager[object]:
    """Returns what holds numpy to one thread while it is entered: the same seed makes the same file on any cores."""
    import numpy  # noqa: F401  # what is not loaded yet would not be held
    from threadpoolctl import threadpool_limits

    held: AbstractContextManager[object] = threadpool_limits(limits=1, user_api="blas")
    return held
