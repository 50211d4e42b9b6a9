"""The table of a launch over a list: made once for it, never stale, and the same however it was made."""

import pytest
import torch
from cases import in_every_dtype, on_every_backend

import wgan_kernels as wk
from wgan_kernels import reference

pytest.importorskip("triton")

on_triton = pytest.mark.parametrize(
    ("backend", "device"), [p for p in on_every_backend.args[1] if "triton" in p.values]
)


@pytest.fixture
def table():
    from wgan_kernels._triton import _table

    _table._kept.cache_clear()
    yield _table
    _table._kept.cache_clear()


@pytest.fixture
def capturing(table, monkeypatch):
    """Launches as they are within the capture of a CUDA graph, but that they run."""
    monkeypatch.setattr(table, "_is_capturing", lambda device: True)
    return table


@on_triton
def test_is_made_once_and_follows_its_tensors(backend, device, table):
    params = [torch.full((n,), 2.0, device=device) for n in (3, 70, 1)]
    with wk.use_backend(backend):
        wk.clip_(params, 1.0)
        wk.clip_(params, 0.5)
        assert table._kept.cache_info().misses == 1
        params[1].data = torch.full((5000,), 3.0, device=device)  # as module.to(device) does
        wk.clip_(params, 0.25)
    assert table._kept.cache_info().misses == 2
    assert [p.unique().tolist() for p in params] == [[0.25]] * 3


@on_triton
def test_the_number_of_tables_is_bounded(backend, device, table):
    kept = [torch.full((2,), 2.0, device=device) for _ in range(table.MAX_TABLES + 3)]
    with wk.use_backend(backend):
        for param in kept:
            wk.clip_([param], 1.0)
    assert table._kept.cache_info().currsize == table.MAX_TABLES
    assert all(param.tolist() == [1.0, 1.0] for param in kept)


@on_triton
def test_streams_share_none(backend, device, table):
    rows = ((4, 1024, 2048),)
    make = [(rows, 1, torch.float32, 2048, torch.device(device), stream) for stream in (0, 1)]
    first, second = (table._kept(*arguments) for arguments in make)
    assert first is table._kept(*make[0]) and first.entries is not second.entries


@on_triton
@pytest.mark.parametrize("count", [1, 12, 16, 17, 50])
def test_is_the_same_when_written_by_kernels(backend, device, table, monkeypatch, count):
    """Up to, at and beyond what one launch writes."""
    rows = tuple((100 * i, 4096 + 400 * i, 65540 + 16 * i) for i in range(count))
    arguments = rows, 1, torch.float32, 1024, torch.device(device), 0
    copied = table._made(*arguments)
    monkeypatch.setattr(table, "_is_capturing", lambda device: True)
    written = table._made(*arguments)
    assert torch.equal(written.entries[: copied.entries.numel()], copied.entries)
    assert written[:1] + written[2:] == copied[:1] + copied[2:]


@on_triton
def test_a_capture_keeps_none(backend, device, capturing):
    params = [torch.full((n,), 2.0, device=device) for n in (3, 7000, 0, 1)] * 8
    with wk.use_backend(backend):
        wk.clip_(params, 1.0)
    assert all((param == 1).all() for param in params)
    assert capturing._kept.cache_info().currsize == 0


@on_triton
@in_every_dtype
def test_every_alignment_and_length(backend, device, dtype):
    """Views into one buffer, side by side but for a guard: no program reaches beyond its tensor."""
    counts = [0, 1, 3, 7, 1023, 1024, 1025, 2040, 2047, 2048, 2049, 4096, 4099]
    buffer = torch.full((16 * sum(counts) + 400,), 5.0, dtype=dtype, device=device)
    expected, views, start = buffer.clone(), [], 0
    for shift in range(9):
        for count in counts:
            start += 1 + (shift - start - 1) % 8 if shift < 8 else 1
            views.append(slice(start, start + count))
            start += count
    with wk.use_backend(backend):
        wk.clip_([buffer[view] for view in views], 1.0)
    reference.clip_([expected[view] for view in views], 1.0)
    assert torch.equal(buffer, expected)
