// The loops that every CPU kernel is made of.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>

// One copy of a loop per instruction set, chosen when the library is loaded: x86-64-v4 is AVX-512, v3 is AVX2 with
// F16C.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WGAN_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WGAN_CLONES
#endif

namespace wgan {

// Elements below which a second thread costs more than it brings. Waking one takes about 4 µs, in which a core streams
// roughly this many floats from its L2 cache (2 cores, AMD EPYC with AVX-512).
constexpr int64_t kGrain = 1 << 15;

// f(row, begin, count) over the flat elements [begin, begin + count) of `rows` rows of `width`; never across two rows.
template <class F>
void parallel_rows(int64_t rows, int64_t width, const F& f) {
  torch::stable::parallel_for(0, rows * width, kGrain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t row = begin / width;
      const int64_t stop = std::min(end, (row + 1) * width);
      f(row, begin, stop - begin);
      begin = stop;
    }
  });
}

}  // namespace wgan
