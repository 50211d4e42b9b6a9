// Deterministic sums: fixed chunks, each summed in fixed lanes, the chunks then added in order and in double. The
// result does not depend on the number of threads.
#pragma once

#include <vector>

#include "../common/dispatch.h"
#include "loops.h"

namespace wgan {

struct Identity {
  template <class C>
  static C of(C x) {
    return x;
  }
};
struct Square {
  template <class C>
  static C of(C x) {
    return x * x;
  }
};

constexpr int64_t kChunk = 4096;

// Σ Term(x) over one chunk of at most kChunk elements. 64 lanes keep four AVX-512 accumulators busy.
template <class Term, class T>
WGAN_CLONES double sum_chunk(const T* x, int64_t count) {
  using C = compute_t<T>;
  constexpr int64_t kLanes = 64;
  int64_t i = 0;
  double sum = 0;
  if (count >= kLanes) {
    C lane[kLanes] = {};
    for (; i + kLanes <= count; i += kLanes) {
      for (int64_t l = 0; l < kLanes; ++l) lane[l] += Term::of(static_cast<C>(x[i + l]));
    }
    double wide[kLanes];
    for (int64_t l = 0; l < kLanes; ++l) wide[l] = lane[l];
    for (int64_t half = kLanes / 2; half > 0; half /= 2) {  // in order they would wait for one another
      for (int64_t l = 0; l < half; ++l) wide[l] += wide[l + half];
    }
    sum = wide[0];
  }
  for (; i < count; ++i) sum += Term::of(static_cast<C>(x[i]));
  return sum;
}

// finish(row, Σ Term(x[row, :])) for every row of x: [rows, width], in order.
template <class Term, class T, class Finish>
void sum_rows(const T* x, int64_t rows, int64_t width, const Finish& finish) {
  const int64_t chunks = (width + kChunk - 1) / kChunk;
  std::vector<double> partial(rows * chunks);
  double* p = partial.data();
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, std::min(width, kChunk)));
  torch::stable::parallel_for(0, rows * chunks, grain, [=](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t row = c / chunks, offset = (c % chunks) * kChunk;
      p[c] = sum_chunk<Term>(x + row * width + offset, std::min(kChunk, width - offset));
    }
  });
  for (int64_t row = 0; row < rows; ++row) {
    double sum = 0;
    for (int64_t c = 0; c < chunks; ++c) sum += p[row * chunks + c];
    finish(row, sum);
  }
}

}  // namespace wgan
