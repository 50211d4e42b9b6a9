// Products of bfloat16 two by two, as AVX-512 BF16 has them: twice as many at once as of float32.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../common/checks.h"
#include "elements.h"

namespace wgan {

using Vector = Avx512::Vector;
constexpr int64_t kLanes = Avx512::kLanes;

// Sixteen times two elements, of which each word has the first in its lower half.
using Pairs [[gnu::vector_size(kLanes * sizeof(uint32_t)), gnu::aligned(sizeof(uint32_t)), gnu::may_alias]] = uint32_t;

[[gnu::always_inline]] inline Pairs& pairs_at(uint32_t* p) { return *reinterpret_cast<Pairs*>(p); }
[[gnu::always_inline]] inline const Pairs& pairs_at(const uint32_t* p) { return *reinterpret_cast<const Pairs*>(p); }

[[gnu::always_inline]] inline void pair(const BFloat16* first, const BFloat16* second, Pairs& pairs) {
  const auto &low = *reinterpret_cast<const Avx512::Halves*>(first),
             &high = *reinterpret_cast<const Avx512::Halves*>(second);
  pairs = __builtin_convertvector(low, Avx512::Words) | __builtin_convertvector(high, Avx512::Words) << 16;
}

// Functions that call the two below, and the question whether they can run here. The instructions are written as such:
// intrinsics are not inlined into what is not of their instruction set itself.
#if defined(__x86_64__) && defined(__GNUC__)
#define WGAN_PAIRS __attribute__((target("arch=x86-64-v4,avx512bf16")))
inline bool has_pairs() { return __builtin_cpu_supports("avx512bf16"); }

// sum += a.first·b.first + a.second·b.second, lane by lane
[[gnu::always_inline]] inline void add_products(Vector& sum, const Pairs& a, const Pairs& b) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
}

// Rounded to the nearest, of two to the even one.
[[gnu::always_inline]] inline void write_rounded(const Vector& v, BFloat16* to) {
  asm("vcvtneps2bf16 %1, %0" : "=v"(*reinterpret_cast<Avx512::Halves*>(to)) : "v"(v));
}
#else
#define WGAN_PAIRS
inline bool has_pairs() { return false; }
inline void add_products(Vector&, const Pairs&, const Pairs&) {}
inline void write_rounded(const Vector&, BFloat16*) {}
#endif

// The channels [channel, channel + kWidth) of images in pairs, [count, pixels, kWidth]. Beyond the last image are
// zeros.
template <int kWidth>
WGAN_PAIRS inline void side_by_side(const BFloat16* from, int64_t samples, int64_t pixels, int64_t channels,
                                    int64_t channel, int64_t first, int64_t count, uint32_t* to) {
  const BFloat16 zeros[kWidth] = {};
  for (int64_t p = first; p < first + count; ++p) {
    const BFloat16* image = from + 2 * p * pixels * channels + channel;
    const bool is_alone = 2 * p + 1 == samples;
    for (int64_t i = 0; i < pixels; ++i, image += channels, to += kWidth) {
      const BFloat16* other = is_alone ? zeros : image + pixels * channels;
      WGAN_UNROLL for (int c = 0; c < kWidth; c += kLanes) pair(image + c, other + c, pairs_at(to + c));
    }
  }
}

// Of a dimension of a convolution from a large image to a small one.
struct Dimension {
  int64_t large, small, taps, stride, padding;

  // Whether the large image has what the small one's pixels see of it, padding included.
  bool has_all() const { return small > 0 && (small - 1) * stride + taps <= large + 2 * padding; }
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

// few: whether the large image has two to four channels instead of whole panels.
inline void check_pairs(const char* op, const char* name, const Tensor& images, const Tensor& w, int channels,
                        bool few = false) {
  STD_TORCH_CHECK(has_pairs(), op, ": needs a processor with AVX-512 BF16");
  STD_TORCH_CHECK(
      images.dim() == 4 && images.is_contiguous() && images.is_cpu() && images.scalar_type() == ScalarType::BFloat16,
      op, ": ", name, " must be contiguous [B, rows, columns, channels] of bfloat16 on the CPU");
  STD_TORCH_CHECK(w.dim() == 4 && w.is_cpu() && w.scalar_type() == ScalarType::BFloat16 && w.numel() > 0, op,
                  ": w must be [small channels, large channels, rows, columns] of bfloat16 on the CPU");
  const int64_t large = w.size(1);
  STD_TORCH_CHECK(w.size(0) % kPanel == 0 && (few ? large >= 2 && large <= 4 : large % kPanel == 0), op,
                  ": w must have channels in multiples of ", kPanel, few ? ", and 2 to 4 of the large image" : "");
  STD_TORCH_CHECK(images.size(3) == w.size(channels), op, ": ", name, " has other channels than w");
}

}  // namespace wgan
