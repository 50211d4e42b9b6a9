// Matrix products of blocks that lie in the cache, for use within a function of an instruction set.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "isa.h"

namespace wgan {

constexpr int64_t kPanel = 32;   // columns that a product takes at once
constexpr int64_t kRowStep = 4;  // rows come in multiples of it

#define WGAN_UNROLL _Pragma("GCC unroll 16")

// sums += a[rows, depth]·b[depth, vectors]; a's entries are `row` and `step` apart.
template <int kRows, int kVectors, class Isa>
[[gnu::always_inline]] inline void add_product(Isa isa, typename Isa::Vector (&sum)[kRows][kVectors], int64_t depth,
                                               const float* a, int64_t row, int64_t step, const float* b) {
  for (int64_t k = 0; k < depth; ++k) {
    typename Isa::Vector of_b[kVectors];
    WGAN_UNROLL for (int v = 0; v < kVectors; ++v) of_b[v] = isa.at(b + k * kPanel + v * isa.kLanes);
    WGAN_UNROLL for (int r = 0; r < kRows; ++r) {
      const float factor = a[r * row + k * step];
      WGAN_UNROLL for (int v = 0; v < kVectors; ++v) sum[r][v] += factor * of_b[v];
    }
  }
}

// c (+)= sums
template <bool kAdd, int kRows, int kVectors, class Isa>
[[gnu::always_inline]] inline void store(Isa isa, const typename Isa::Vector (&sum)[kRows][kVectors], float* c,
                                         int64_t columns) {
  WGAN_UNROLL for (int r = 0; r < kRows; ++r) {
    WGAN_UNROLL for (int v = 0; v < kVectors; ++v) {
      typename Isa::Lying& to = isa.at(c + r * columns + v * isa.kLanes);
      to = kAdd ? to + sum[r][v] : sum[r][v];
    }
  }
}

// f(first column of so many vectors) for all of a panel that is asked for.
template <int kVectors, class Isa, class F>
[[gnu::always_inline]] inline void in_panel(Isa isa, int64_t asked, const F& f) {
  for (int64_t column = 0; column < asked; column += kVectors * isa.kLanes) f(column);
}

// c[rows, asked] (+)= a[rows, depth]·b[depth, asked], of a panel's columns those asked for, to the end of a vector.
// What is added to comes last: the rounding errors of a long sum, made of many products, grow with the root of their
// number and of their depth, not of both at once.
template <int kRows, bool kAdd, int kVectors, class Isa>
[[gnu::always_inline]] inline void panel_product(Isa isa, int64_t depth, const float* a, int64_t row, int64_t step,
                                                 const float* b, float* c, int64_t columns, int64_t asked) {
  in_panel<kVectors>(isa, asked, [=](int64_t column) __attribute__((always_inline)) {
    typename Isa::Vector sum[kRows][kVectors] = {};
    add_product(isa, sum, depth, a, row, step, b + column);
    store<kAdd>(isa, sum, c + column, columns);
  });
}

// f(std::integral_constant<int, count>{}, first) over [0, rows): as many at once as there are registers for, then
// 8, 4, 2 and 1.
template <class Isa, class F>
[[gnu::always_inline]] inline void in_groups(Isa isa, int64_t rows, const F& f) {
  int64_t r = 0;
  for (; r + isa.kMost <= rows; r += isa.kMost) f(std::integral_constant<int, Isa::kMost>{}, r);
  const auto rest = [&](auto count) __attribute__((always_inline)) {
    if (count < isa.kMost && r + count <= rows) {
      f(count, r);
      r += count;
    }
  };
  if constexpr (Isa::kMost > 8) rest(std::integral_constant<int, 8>{});
  rest(std::integral_constant<int, 4>{});
  rest(std::integral_constant<int, 2>{});
  rest(std::integral_constant<int, 1>{});
}

// The product for any number of rows.
template <bool kAdd, int kVectors = 2, class Isa>
[[gnu::always_inline]] inline void rows_product(Isa isa, int64_t rows, int64_t depth, const float* a, int64_t row,
                                                int64_t step, const float* b, float* c, int64_t columns,
                                                int64_t asked = kPanel) {
  in_groups(isa, rows, [=](auto count, int64_t r) __attribute__((always_inline)) {
    panel_product<count, kAdd, kVectors>(isa, depth, a + r * row, row, step, b, c + r * columns, columns, asked);
  });
}

// f(std::integral_constant<int, count>{}) for a count from 1 to kMost.
template <int kMost, class F>
[[gnu::always_inline]] inline void of_count(int64_t count, const F& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (void)((count == I + 1 && (f(std::integral_constant<int, I + 1>{}), true)) || ...);
  }(std::make_integer_sequence<int, kMost>{});
}

// f(count, first) over [0, size) in parts of kMost at most, all of about the same length.
template <int kMost, class F>
[[gnu::always_inline]] inline void in_parts(int64_t size, const F& f) {
  const int64_t parts = (size + kMost - 1) / kMost;
  for (int64_t part = 0, first = 0; part < parts; ++part) {
    const int64_t count = (size - first) / (parts - part);
    of_count<kMost>(count, [&](auto of) __attribute__((always_inline)) { f(of, first); });
    first += count;
  }
}

}  // namespace wgan
