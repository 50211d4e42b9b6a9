// Sixteen elements of an image as float32, and back, for use within a WGAN_CLONES function.
#pragma once

#include <torch/headeronly/core/ScalarType.h>

#include "../common/dispatch.h"
#include "products.h"

namespace wgan {

namespace detail {
using Halves [[gnu::vector_size(kLanes * sizeof(uint16_t)), gnu::aligned(2), gnu::may_alias]] = uint16_t;
using Words [[gnu::vector_size(kLanes * sizeof(uint32_t))]] = uint32_t;
}  // namespace detail

[[gnu::always_inline]] inline void read(const float* from, Vector& v) { v = vector_at(from); }

[[gnu::always_inline]] inline void read(const BFloat16* from, Vector& v) {
  const detail::Halves halves = *reinterpret_cast<const detail::Halves*>(from);
  v = reinterpret_cast<Vector>(__builtin_convertvector(halves, detail::Words) << 16);
}

[[gnu::always_inline]] inline void write(const Vector& v, float* to) { vector_at(to) = v; }

// Rounded to the nearest, of two to the even one.
[[gnu::always_inline]] inline void write(const Vector& v, BFloat16* to) {
  const detail::Words bits = reinterpret_cast<detail::Words>(v);
  const detail::Words rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const detail::Words kept = v == v ? rounded : (bits >> 16 | 0x40);  // NaN stays one
  *reinterpret_cast<detail::Halves*>(to) = __builtin_convertvector(kept, detail::Halves);
}

// Those that are so far apart.
template <class T>
[[gnu::always_inline]] inline void read_strided(const T* from, int64_t stride, Vector& v) {
  if (stride == 1) return read(from, v);
  for (int64_t l = 0; l < kLanes; ++l) v[l] = static_cast<float>(from[l * stride]);
}

template <class T>
[[gnu::always_inline]] inline void write_strided(const Vector& v, int64_t stride, T* to) {
  if (stride == 1) return write(v, to);
  for (int64_t l = 0; l < kLanes; ++l) to[l * stride] = static_cast<T>(v[l]);
}

// f.operator()<T>() for the element type of a tensor, one of these.
template <class F>
auto of_element(ScalarType type, const F& f) {
  return type == ScalarType::BFloat16 ? f.template operator()<BFloat16>() : f.template operator()<float>();
}

}  // namespace wgan
