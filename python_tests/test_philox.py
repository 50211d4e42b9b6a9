"""csrc/common/philox.h: Philox4x32-10 by its published answers, and torch's map from bits to [0, 1)."""

import os
import shutil
import subprocess
from pathlib import Path

import philox
import pytest
import torch
from cases import _why_not

import wgan_kernels as wk

ROOT = Path(__file__).parent.parent
CXX = shutil.which(os.environ.get("CXX", "c++"))

MAIN = r"""
#include <cinttypes>
#include <cstdio>
#include "common/philox.h"
int main() {
  for (uint64_t a, b, c, d; scanf("%" SCNu64 "%" SCNu64 "%" SCNu64 "%" SCNu64, &a, &b, &c, &d) == 4;) {
    const wgan::Words w = wgan::philox(a, b, c);
    printf("%u %u %u %u %a %a\n", w.at[0], w.at[1], w.at[2], w.at[3], wgan::unit_interval(uint32_t(a)),
           wgan::uniform(a, b, int64_t(c >> 1), int64_t(d)));
  }
}
"""

# Key and counter in 64-bit halves, low word first. Source: Random123 (Salmon et al. 2011), kat_vectors, philox4x32 10.
ANSWERS = [
    ((0, 0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((2**64 - 1, 2**64 - 1, 2**64 - 1), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ((0x299F31D0_A4093822, 0x85A308D3_243F6A88, 0x03707344_13198A2E), "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def test_the_plain_python_gives_the_published_answers():
    for arguments, expected in ANSWERS:
        assert philox.words(*arguments) == [int(word, 16) for word in expected.split()]


@pytest.mark.skipif(CXX is None, reason="needs a C++ compiler")
def test_the_header_gives_the_same(tmp_path):
    (tmp_path / "main.cpp").write_text(MAIN)
    program = tmp_path / "main"
    subprocess.run([CXX, "-std=c++20", f"-I{ROOT / 'csrc'}", tmp_path / "main.cpp", "-o", program], check=True)
    # Words that round up, to 1, to even; seeds, offsets and indices on both sides of 32 bits.
    edges = [0, 1, 2**24 - 1, 2**31, 2**32 - 2**8, 2**32 - 2**7 - 1, 2**32 - 2**7, 2**32 - 1, 2**40 + 7, 2**64 - 1]
    asked = [(a, b, c, d) for a in edges for b in (0, 4, 2**32 + 4) for c in (0, 7, 2**33) for d in (1, 5, 270_336)]
    asked += [(*arguments, 5) for arguments, _ in ANSWERS]
    text = "\n".join(" ".join(map(str, row)) for row in asked)
    out = subprocess.run([program], input=text, capture_output=True, text=True, check=True).stdout.splitlines()
    for (a, b, c, d), line in zip(asked, out, strict=True):
        *words, unit, drawn = line.split()
        assert [int(word) for word in words] == philox.words(a, b, c)
        assert float.fromhex(unit) == philox.unit_interval(a % 2**32)
        assert float.fromhex(drawn) == philox.uniform(a, b, c >> 1, d)


@pytest.mark.skipif(bool(_why_not("cuda", "cuda")), reason=_why_not("cuda", "cuda") or "")
@pytest.mark.parametrize("batch", [1, 64, 1000, 65_536])
@pytest.mark.parametrize("seed", [0, 2**31 + 5, 2**53 - 1])
def test_eps_is_what_cuda_torch_draws(batch, seed):
    ours = torch.Generator("cuda").manual_seed(seed)
    theirs = torch.Generator("cuda").manual_seed(seed)
    ends = torch.ones(batch, 2, device="cuda"), torch.zeros(batch, 2, device="cuda")
    for _ in range(3):
        with wk.use_backend("cuda"):
            eps = wk.interpolate(*ends, generator=ours)[:, 0]
        assert torch.equal(eps, torch.rand(batch, device="cuda", generator=theirs))
        assert ours.get_offset() == theirs.get_offset()
