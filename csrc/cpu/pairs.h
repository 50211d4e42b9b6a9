// Products of bfloat16 two by two, as AVX-512 BF16 has them: twice as many at once as of float32.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../common/checks.h"
#include "elements.h"

namespace wgan {

// Sixteen times two elements, of which each word has the first in its lower half.
using Pairs [[gnu::vector_size(kLanes * sizeof(uint32_t)), gnu::aligned(sizeof(uint32_t)), gnu::may_alias]] = uint32_t;

[[gnu::always_inline]] inline Pairs& pairs_at(uint32_t* p) { return *reinterpret_cast<Pairs*>(p); }
[[gnu::always_inline]] inline const Pairs& pairs_at(const uint32_t* p) { return *reinterpret_cast<const Pairs*>(p); }

[[gnu::always_inline]] inline void pair(const BFloat16* first, const BFloat16* second, Pairs& pairs) {
  const auto &low = *reinterpret_cast<const detail::Halves*>(first),
             &high = *reinterpret_cast<const detail::Halves*>(second);
  pairs = __builtin_convertvector(low, detail::Words) | __builtin_convertvector(high, detail::Words) << 16;
}

// Functions that call `add_products`, and the question whether they can run here. The instruction is written as such:
// an intrinsic is not inlined into templates that are not of its instruction set themselves.
#if defined(__x86_64__) && defined(__GNUC__)
#define WGAN_PAIRS __attribute__((target("arch=x86-64-v4,avx512bf16")))
inline bool has_pairs() { return __builtin_cpu_supports("avx512bf16"); }

// sum += a.first·b.first + a.second·b.second, lane by lane
[[gnu::always_inline]] inline void add_products(Vector& sum, const Pairs& a, const Pairs& b) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
}
#else
#define WGAN_PAIRS
inline bool has_pairs() { return false; }
inline void add_products(Vector&, const Pairs&, const Pairs&) {}
#endif

// Of a dimension of a convolution from a large image to a small one.
struct Dimension {
  int64_t large, small, taps, stride, padding;

  // Where in the large image a pixel of the small one meets a tap.
  int64_t at(int64_t pixel, int64_t tap) const { return pixel * stride - padding + tap; }
  // Pixels of the small image that meet something there.
  int64_t begin(int64_t tap) const {
    return tap < padding ? std::min(small, (padding - tap + stride - 1) / stride) : 0;
  }
  int64_t end(int64_t tap) const {
    const int64_t last = large - 1 + padding - tap;
    return last < 0 ? 0 : std::min(small, last / stride + 1);
  }
};

// geometry: stride and padding, of rows and of columns each.
inline Dimension dimension_of(const char* op, int d, const Tensor& w, int64_t large, int64_t small,
                              const std::vector<int64_t>& geometry) {
  STD_TORCH_CHECK(geometry.size() == 4 && geometry[d] > 0 && geometry[2 + d] >= 0, op,
                  ": the geometry is stride, of 1 at least, and padding, of rows and of columns each");
  return {large, small, w.size(2 + d), geometry[d], geometry[2 + d]};
}

inline void check_pairs(const char* op, const char* name, const Tensor& images, const Tensor& w, int channels) {
  STD_TORCH_CHECK(has_pairs(), op, ": needs a processor with AVX-512 BF16");
  STD_TORCH_CHECK(
      images.dim() == 4 && images.is_contiguous() && images.is_cpu() && images.scalar_type() == ScalarType::BFloat16,
      op, ": ", name, " must be contiguous [B, rows, columns, channels] of bfloat16 on the CPU");
  STD_TORCH_CHECK(w.dim() == 4 && w.is_cpu() && w.scalar_type() == ScalarType::BFloat16 && w.size(0) % kPanel == 0 &&
                      w.size(1) % kPanel == 0 && w.numel() > 0,
                  op,
                  ": w must be [small channels, large channels, rows, columns] of bfloat16 on the CPU, channels in "
                  "multiples of ",
                  kPanel);
  STD_TORCH_CHECK(images.size(3) == w.size(channels), op, ": ", name, " has other channels than w");
}

}  // namespace wgan
