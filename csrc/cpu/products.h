// Matrix products of blocks that lie in the cache, for use within a WGAN_CLONES function.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

namespace wgan {

constexpr int64_t kLanes = 16;          // of a vector
constexpr int64_t kPanel = 2 * kLanes;  // columns that a product takes at once
constexpr int64_t kRowStep = 4;         // rows come in multiples of it

using Vector [[gnu::vector_size(kLanes * sizeof(float)), gnu::aligned(sizeof(float)), gnu::may_alias]] = float;

#define WGAN_UNROLL _Pragma("GCC unroll 16")

[[gnu::always_inline]] inline Vector& vector_at(float* p) { return *reinterpret_cast<Vector*>(p); }
[[gnu::always_inline]] inline const Vector& vector_at(const float* p) { return *reinterpret_cast<const Vector*>(p); }

// Sums of so many rows in 2·kRows vectors, which AVX-512 has registers for if rows are 12.
template <int kRows>
using Sums = Vector[kRows][2];

// sums += a[rows, depth]·b[depth, panel]; a's entries are `row` and `step` apart.
template <int kRows>
[[gnu::always_inline]] inline void add_product(Sums<kRows>& sum, int64_t depth, const float* a, int64_t row,
                                               int64_t step, const float* b) {
  for (int64_t k = 0; k < depth; ++k) {
    const Vector first = vector_at(b + k * kPanel), second = vector_at(b + k * kPanel + kLanes);
    WGAN_UNROLL for (int r = 0; r < kRows; ++r) {
      const float factor = a[r * row + k * step];
      sum[r][0] += factor * first;
      sum[r][1] += factor * second;
    }
  }
}

// c (+)= sums
template <int kRows, bool kAdd>
[[gnu::always_inline]] inline void store(const Sums<kRows>& sum, float* c, int64_t columns) {
  WGAN_UNROLL for (int r = 0; r < kRows; ++r) {
    Vector &first = vector_at(c + r * columns), &second = vector_at(c + r * columns + kLanes);
    first = kAdd ? first + sum[r][0] : sum[r][0];
    second = kAdd ? second + sum[r][1] : sum[r][1];
  }
}

// c[rows, panel] (+)= a[rows, depth]·b[depth, panel]. What is added to comes last: the rounding errors of a long sum,
// made of many products, grow with the root of their number and of their depth, not of both at once.
template <int kRows, bool kAdd>
[[gnu::always_inline]] inline void panel_product(int64_t depth, const float* a, int64_t row, int64_t step,
                                                 const float* b, float* c, int64_t columns) {
  Sums<kRows> sum = {};
  add_product<kRows>(sum, depth, a, row, step, b);
  store<kRows, kAdd>(sum, c, columns);
}

// The same for any number of rows, a multiple of kRowStep.
template <bool kAdd>
[[gnu::always_inline]] inline void rows_product(int64_t rows, int64_t depth, const float* a, int64_t row, int64_t step,
                                                const float* b, float* c, int64_t columns) {
  int64_t r = 0;
  for (; r + 12 <= rows; r += 12) panel_product<12, kAdd>(depth, a + r * row, row, step, b, c + r * columns, columns);
  if (r + 8 <= rows) {
    panel_product<8, kAdd>(depth, a + r * row, row, step, b, c + r * columns, columns);
  } else if (r + 4 <= rows) {
    panel_product<4, kAdd>(depth, a + r * row, row, step, b, c + r * columns, columns);
  }
}

constexpr int kMost = 12;  // rows of which AVX-512 has registers for the sums, in two vectors each

// f(std::integral_constant<int, count>{}) for a count from 1 to kMost.
template <class F>
[[gnu::always_inline]] inline void of_count(int64_t count, const F& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (void)((count == I + 1 && (f(std::integral_constant<int, I + 1>{}), true)) || ...);
  }(std::make_integer_sequence<int, kMost>{});
}

// f(count, first) over [0, size) in parts of kMost at most, all of about the same length.
template <class F>
[[gnu::always_inline]] inline void in_parts(int64_t size, const F& f) {
  const int64_t parts = (size + kMost - 1) / kMost;
  for (int64_t part = 0, first = 0; part < parts; ++part) {
    const int64_t count = (size - first) / (parts - part);
    of_count(count, [&](auto of) __attribute__((always_inline)) { f(of, first); });
    first += count;
  }
}

}  // namespace wgan
