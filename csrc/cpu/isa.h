// Vectors of an instruction set, and functions that are compiled for each set and chosen when they are called.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace wgan {

// kMost: rows of which there are registers for the sums, in two vectors each, and for what these are made of.
template <int lanes, int most>
struct Vectors {
  static constexpr int64_t kLanes = lanes;
  static constexpr int kMost = most;

  using Vector [[gnu::vector_size(lanes * sizeof(float))]] = float;
  using Words [[gnu::vector_size(lanes * sizeof(uint32_t))]] = uint32_t;
  // In memory, where they lie at any address. Of such a type `auto` would lose that.
  using Lying [[gnu::vector_size(lanes * sizeof(float)), gnu::aligned(sizeof(float)), gnu::may_alias]] = float;
  using Halves [[gnu::vector_size(lanes * sizeof(uint16_t)), gnu::aligned(2), gnu::may_alias]] = uint16_t;

  [[gnu::always_inline]] static Lying& at(float* p) { return *reinterpret_cast<Lying*>(p); }
  [[gnu::always_inline]] static const Lying& at(const float* p) { return *reinterpret_cast<const Lying*>(p); }
};
using Avx512 = Vectors<16, 12>;
using Avx2 = Vectors<8, 6>;
using Plain = Vectors<4, 6>;

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WGAN_FOR(name) __attribute__((target("arch=" name)))
inline bool runs(const char* capability, bool here) {
  // As PyTorch reads it: to leave wider vectors alone.
  const char* asked = std::getenv("ATEN_CPU_CAPABILITY");
  const bool is_less = asked && (!std::strcmp(asked, "default") || (!std::strcmp(asked, "avx2") && *capability == '5'));
  return here && !is_less;
}
inline int widest() {
  static const int lanes = runs("512", __builtin_cpu_supports("x86-64-v4")) ? Avx512::kLanes
                           : runs("2", __builtin_cpu_supports("x86-64-v3")) ? Avx2::kLanes
                                                                            : Plain::kLanes;
  return lanes;
}
#else
#define WGAN_FOR(name)
inline int widest() { return Plain::kLanes; }
#endif

// f(isa, arguments…), an always_inline lambda, compiled for each instruction set.
template <class F>
class ByIsa {
 public:
  constexpr explicit ByIsa(F f) : f_(f) {}

  template <class... A>
  void operator()(A&&... a) const {
    switch (widest()) {
      case Avx512::kLanes:
        return on_avx512(a...);
      case Avx2::kLanes:
        return on_avx2(a...);
      default:
        return f_(Plain{}, a...);
    }
  }

 private:
  template <class... A>
  WGAN_FOR("x86-64-v4")
  void on_avx512(A&... a) const {
    f_(Avx512{}, a...);
  }
  template <class... A>
  WGAN_FOR("x86-64-v3")
  void on_avx2(A&... a) const {
    f_(Avx2{}, a...);
  }

  F f_;
};

}  // namespace wgan
