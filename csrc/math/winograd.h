// Minimal filtering: M outputs of a filter of two taps, y_i = d_i·g_0 + d_{i+1}·g_1, by M + 1 products instead of 2·M:
//   y = Aᵀ[(G g) ∘ (Bᵀ d)].
// F(3, 2) takes the values of both polynomials at 0, 1, −1 and ∞; F(2, 2) the same without −1, whose G g is a part of
// the other's. The gradient of the taps, from outputs δ, is Gᵀ[(A δ) ∘ (Bᵀ d)]. In two dimensions each is applied to
// rows and then to columns. F(2, 3), two outputs of three taps, has the same four points and the same Bᵀ as F(3, 2).
// Winograd 1980, "Arithmetic Complexity of Computations", chapter 5; Lavin and Gray 2016, arXiv:1509.09308, section 4.
#pragma once

#include <cstdint>

#include "host_device.h"

namespace wgan::math {

constexpr int kPoints = 4;  // 0, 1, −1, ∞
constexpr int kMinus = 2;   // which of them F(2, 2) does without

// p = Bᵀ d: d[0 … M], p[0 … 3], each at its own distance.
template <int M, class V>
WGAN_HD void winograd_data(const V* d, int64_t ds, V* p, int64_t ps) {
  if constexpr (M == 3) {
    p[0] = d[0] - d[2 * ds];
    p[ps] = d[ds] + d[2 * ds];
    p[2 * ps] = d[2 * ds] - d[ds];
    p[3 * ps] = d[3 * ds] - d[ds];
  } else {
    p[0] = d[0] - d[ds];
    p[ps] = d[ds] + d[ds];
    p[3 * ps] = d[2 * ds] - d[ds];
  }
}

// p = G g
template <class V>
WGAN_HD void winograd_taps(const V& first, const V& second, V* p, int64_t ps) {
  p[0] = first;
  p[ps] = (first + second) * 0.5f;
  p[2 * ps] = (first - second) * 0.5f;
  p[3 * ps] = second;
}

// y = Aᵀ p
template <int M, class V>
WGAN_HD void winograd_outputs(const V* p, int64_t ps, V* y, int64_t ys) {
  if constexpr (M == 3) {
    const V sum = p[ps] + p[2 * ps];
    y[0] = p[0] + sum;
    y[ys] = p[ps] - p[2 * ps];
    y[2 * ys] = sum + p[3 * ps];
  } else {
    y[0] = p[0] + p[ps];
    y[ys] = p[ps] + p[3 * ps];
  }
}

// p = A δ
template <int M, class V>
WGAN_HD void winograd_deltas(const V* d, int64_t ds, V* p, int64_t ps) {
  const V last = d[(M - 1) * ds], ends = d[0] + last;
  p[0] = d[0];
  if constexpr (M == 3) {
    p[ps] = ends + d[ds];
    p[2 * ps] = ends - d[ds];
  } else {
    p[ps] = ends;
  }
  p[3 * ps] = last;
}

// g = Gᵀ p
template <class V>
WGAN_HD void winograd_tap_gradients(const V* p, int64_t ps, V* g, int64_t gs) {
  g[0] = p[0] + (p[ps] + p[2 * ps]) * 0.5f;
  g[gs] = p[3 * ps] + (p[ps] - p[2 * ps]) * 0.5f;
}

// The same of F(2, 3): p = G g, y = Aᵀ p, p = A δ, g = Gᵀ p.
template <class V>
WGAN_HD void winograd_three_taps(const V* g, int64_t gs, V* p, int64_t ps) {
  const V ends = g[0] + g[2 * gs];
  p[0] = g[0];
  p[ps] = (ends + g[gs]) * 0.5f;
  p[2 * ps] = (ends - g[gs]) * 0.5f;
  p[3 * ps] = g[2 * gs];
}

template <class V>
WGAN_HD void winograd_two_outputs(const V* p, int64_t ps, V* y, int64_t ys) {
  y[0] = p[0] + (p[ps] + p[2 * ps]);
  y[ys] = (p[ps] - p[2 * ps]) + p[3 * ps];
}

template <class V>
WGAN_HD void winograd_two_deltas(const V* d, int64_t ds, V* p, int64_t ps) {
  p[0] = d[0];
  p[ps] = d[0] + d[ds];
  p[2 * ps] = d[0] - d[ds];
  p[3 * ps] = d[ds];
}

template <class V>
WGAN_HD void winograd_three_tap_gradients(const V* p, int64_t ps, V* g, int64_t gs) {
  const V sum = (p[ps] + p[2 * ps]) * 0.5f;
  g[0] = p[0] + sum;
  g[gs] = (p[ps] - p[2 * ps]) * 0.5f;
  g[2 * gs] = sum + p[3 * ps];
}

}  // namespace wgan::math
