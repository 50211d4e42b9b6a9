"""IDX files of unsigned bytes, gzipped or not (LeCun, Cortes, Burges).

Big-endian; magic 0 0 <type> <dimensions>, one uint32 per dimension, then the values.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch

from ..errors import UsageError

UBYTE = 0x08


def read_idx(path: Path, dimensions: int) -> torch.Tensor:
    """One file, gzipped if its name ends in .gz: a uint8 tensor of ``dimensions`` dimensions. Raises UsageError."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise UsageError(f"--data: cannot read {path} ({error}); fetch the file again") from error
    header = 4 + 4 * dimensions
    expected = bytes((0, 0, UBYTE, dimensions))
    if content[:4] != expected:
        raise UsageError(
            f"--data: {path} is not an IDX file of {dimensions}-dimensional bytes: "
            f"it begins with {content[:4].hex() or 'nothing'}, expected {expected.hex()}"
        )
    if len(content) < header:
        raise UsageError(f"--data: {path} is truncated inside its header ({len(content)} of {header} bytes)")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) != header + math.prod(shape):
        raise UsageError(
            f"--data: {path} has {len(content) - header} bytes of values, its header promises {math.prod(shape)} "
            f"({' × '.join(map(str, shape))}); the file is truncated or damaged: fetch it again"
        )
    values = torch.frombuffer(bytearray(content), dtype=torch.uint8)[header:]
    return values.reshape(shape)
