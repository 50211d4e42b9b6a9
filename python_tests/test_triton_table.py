"""The address table of clip_'s launch: made once for a list, and never stale."""

import pytest
import torch
from cases import on_every_backend

import wgan_kernels as wk

pytest.importorskip("triton")


@pytest.fixture
def tables():
    from wgan_kernels._triton import clip

    clip._tables.clear()
    yield clip._tables
    clip._tables.clear()


@on_every_backend
def test_is_made_once_and_follows_its_tensors(backend, device, tables):
    if backend != "triton":
        pytest.skip("the table is Triton's")
    params = [torch.full((n,), 2.0, device=device) for n in (3, 70, 1)]
    with wk.use_backend(backend):
        wk.clip_(params, 1.0)
        (first,) = tables.values()
        wk.clip_(params, 0.5)
        assert list(tables.values()) == [first]
        params[1].data = torch.full((5000,), 3.0, device=device)  # as module.to(device) does
        wk.clip_(params, 0.25)
    assert len(tables) == 2
    assert [p.unique().tolist() for p in params] == [[0.25]] * 3


@on_every_backend
def test_the_number_of_tables_is_bounded(backend, device, tables):
    if backend != "triton":
        pytest.skip("the table is Triton's")
    from wgan_kernels._triton import clip

    kept = [torch.full((2,), 2.0, device=device) for _ in range(clip._MAX_TABLES + 3)]
    with wk.use_backend(backend):
        for param in kept:
            wk.clip_([param], 1.0)
            assert len(tables) <= clip._MAX_TABLES
    assert all(param.tolist() == [1.0, 1.0] for param in kept)
