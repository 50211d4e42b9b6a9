// Elements of an image as float32, a vector of an instruction set at once, and back.
#pragma once

#include <torch/headeronly/core/ScalarType.h>

#include "../common/dispatch.h"
#include "products.h"

namespace wgan {

template <class Isa>
[[gnu::always_inline]] inline void read(Isa isa, const float* from, typename Isa::Vector& v) {
  v = isa.at(from);
}

template <class Isa>
[[gnu::always_inline]] inline void read(Isa, const BFloat16* from, typename Isa::Vector& v) {
  const typename Isa::Halves& halves = *reinterpret_cast<const typename Isa::Halves*>(from);
  v = reinterpret_cast<typename Isa::Vector>(__builtin_convertvector(halves, typename Isa::Words) << 16);
}

template <class Isa>
[[gnu::always_inline]] inline void write(Isa isa, const typename Isa::Vector& v, float* to) {
  isa.at(to) = v;
}

// Rounded to the nearest, of two to the even one.
template <class Isa>
[[gnu::always_inline]] inline void write(Isa, const typename Isa::Vector& v, BFloat16* to) {
  using Words = typename Isa::Words;
  const Words bits = reinterpret_cast<Words>(v);
  const Words rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const Words kept = v == v ? rounded : (bits >> 16 | 0x40);  // NaN stays one
  *reinterpret_cast<typename Isa::Halves*>(to) = __builtin_convertvector(kept, typename Isa::Halves);
}

// Those that are so far apart.
template <class Isa, class T>
[[gnu::always_inline]] inline void read_strided(Isa isa, const T* from, int64_t stride, typename Isa::Vector& v) {
  if (stride == 1) return read(isa, from, v);
  for (int64_t l = 0; l < isa.kLanes; ++l) v[l] = static_cast<float>(from[l * stride]);
}

template <class Isa, class T>
[[gnu::always_inline]] inline void write_strided(Isa isa, const typename Isa::Vector& v, int64_t stride, T* to) {
  if (stride == 1) return write(isa, v, to);
  for (int64_t l = 0; l < isa.kLanes; ++l) to[l * stride] = static_cast<T>(v[l]);
}

// f.operator()<T>() for the element type of a tensor, one of these.
template <class F>
auto of_element(ScalarType type, const F& f) {
  return type == ScalarType::BFloat16 ? f.template operator()<BFloat16>() : f.template operator()<float>();
}

}  // namespace wgan
