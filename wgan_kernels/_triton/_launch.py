"""What the kernels share: how [rows, width] memory is cut into programs, and the two conversions around arithmetic."""

from typing import NamedTuple

import triton
import triton.language as tl

# A row is cut into runs of this many bytes: four 16-byte accesses in each of the 128 threads of a program.
RUN_BYTES = 8192
# Short rows are gathered into programs of about this many elements.
_GATHERED = 1024

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)

# Sizes are not specialised on: their divisibility is in UNIT, and a new batch size must not compile anew.
kernel = triton.jit(
    do_not_specialize=(
        "rows",
        "units",
        "tensors",
        "chunks",
        "real_terms",
        "fake_terms",
        "real_count",
        "fake_count",
        "seed",
        "offset",
    )
)


class Tiles(NamedTuple):
    """A grid of programs over [rows, width], each of ROWS × COLS elements, ``chunks`` of them side by side in a row.

    width = units·UNIT, where UNIT elements are 16 bytes if the width allows it: what the compiler must know to access
    16 bytes at a time, since rows start at multiples of the width.
    """

    programs: int
    rows: int
    units: int
    chunks: int
    UNIT: int
    ROWS: int
    COLS: int

    @property
    def arguments(self):
        """What a kernel takes of it, by name."""
        return {name: value for name, value in self._asdict().items() if name != "programs"}


def tiles(tensor):
    """The ``Tiles`` of a [B, …] tensor with B > 0."""
    rows = tensor.shape[0]
    width = tensor.numel() // rows
    vector = 16 // tensor.itemsize
    unit = 1 if width % vector else vector
    cols = min(triton.next_power_of_2(max(width, 1)), RUN_BYTES // tensor.itemsize)
    rows_at_once = max(1, _GATHERED // cols)
    chunks = triton.cdiv(max(width, 1), cols)
    return Tiles(triton.cdiv(rows, rows_at_once) * chunks, rows, width // unit, chunks, unit, rows_at_once, cols)


@triton.jit
def tile(rows, units, chunks, UNIT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """This program's (row [ROWS, 1], chunk [], offset [ROWS, COLS], mask [ROWS, COLS])."""
    program = tl.program_id(0)
    chunk = program % chunks
    row = (program // chunks).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    width = units * UNIT
    col = chunk.to(tl.int64) * COLS + tl.arange(0, COLS)[None, :]
    return row, chunk, row * width + col, (row < rows) & (col < width)


@triton.jit
def widened(x):
    """x in the type arithmetic is done in: float64 for float64, float32 for the others."""
    return x if x.dtype == tl.float64 else x.to(tl.float32)


@triton.jit
def rounded(x, dtype: tl.constexpr):
    """x in ``dtype``, rounded to nearest, ties to even; to the half types by way of float32."""
    if dtype != tl.float64:
        x = x.to(tl.float32)
        # The interpreter truncates here, where a GPU rounds.
        if INTERPRETED and dtype == tl.bfloat16:
            bits = x.to(tl.uint32, bitcast=True)
            bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
            x = tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
    return x.to(dtype)
