"""Fixtures that every package's tests share."""

from __future__ import annotations

import atexit
import gc
import os
import resource
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

import tiny_bundle as tiny

# Before torch is imported: threads that spin while they wait for a busy core make a test ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shared processor makes the time of one example meaningless.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What imports leave behind is no garbage: looking for some took two fifths of collecting the tests.

    Nor is it looked through again while they run, at most of a second a time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # else nanobind reports what was imported as leaks
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first: at the end one worker would do them alone.

    The Makefile keeps this order; xdist by itself begins with the files of most tests, often the quick ones.
    """
    long = {item.path for item in items if any(map(item.get_closest_marker, ("first", "slow", "pages")))}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """``full_disk(size)``: within it no file grows beyond ``size`` bytes, and a write stops half way."""

    @contextmanager
    def limited(size_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def ordinary_user() -> Callable[[], AbstractContextManager[None]]:
    """``ordinary_user()``: within it root, who may read whatever there is, has the rights of nobody."""

    @contextmanager
    def lowered() -> Iterator[None]:
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(before)

    return lowered


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a sealed bundle that refers from logit 0; not to be written to."""
    return tiny.make(tmp_path_factory.mktemp("bundles") / "tiny").folder


@pytest.fixture(scope="session")
def picture_bytes() -> Callable[..., bytes]:
    """``picture_bytes(kind, format, size)``: kind is 'referred', 'below' or 'black'."""
    return tiny.picture_bytes
