// Normalisation of rows: x̂ = (x − μ)·r, r = 1/√(var + eps), y = x̂·w + b; Ba, Kiros and Hinton 2016, equation 4.
//
// With g = δ·w and means over a row, the pullback is P(g) = r·(g − mean(g) − x̂·mean(g·x̂)). The cotangent t of P(g)
// gives
//   ∂δ = w·P(t),  ∂w = Σ δ·P(t),
//   ∂x = r²·(x̂·bend − mean(t·x̂)·(g − mean(g)) − mean(g·x̂)·(t − mean(t))),
//   bend = 3·mean(t·x̂)·mean(g·x̂) + mean(t)·mean(g) − mean(t·g),
// derived in wgan_kernels/rules/norm.py. Without μ (RMSNorm), mean(g) and mean(t) are 0 in all of this.
#pragma once

#include <cmath>

#include "host_device.h"

namespace wgan::math {

// r from the mean of (x − m)², m being μ but for rounding, and `rest`, the mean of x − m: 0 where nothing is
// subtracted.
template <class C>
WGAN_HD C layer_norm_rstd(double square, double rest, double eps) {
  const double variance = square - rest * rest;
  return static_cast<C>(1 / sqrt((variance < 0 ? 0 : variance) + eps));
}

// What a row's ∂δ and ∂x need of it, from the means over it of t, t·x̂, g, g·x̂ and t·g.
template <class C>
struct LayerNormMeans {
  C t, tx, g, gx, bend;

  WGAN_HD LayerNormMeans(const double (&mean)[5], bool centered)
      : t(static_cast<C>(centered ? mean[0] : 0)),
        tx(static_cast<C>(mean[1])),
        g(static_cast<C>(centered ? mean[2] : 0)),
        gx(static_cast<C>(mean[3])),
        bend(static_cast<C>(3 * mean[1] * mean[3] + (centered ? mean[0] * mean[2] : 0) - mean[4])) {}
};

template <class C>
WGAN_HD C normalised(C x, C mean, C rstd) {
  return (x - mean) * rstd;
}

// P(g), by mean(g) and mean(g·x̂); x: x̂.
template <class C>
WGAN_HD C layer_norm_bwd(C g, C x, C rstd, C g_mean, C gx_mean) {
  return rstd * (g - g_mean - x * gx_mean);
}

// ∂x; x: x̂.
template <class C>
WGAN_HD C layer_norm_bwd_bwd(C t, C g, C x, C rstd, const LayerNormMeans<C>& mean) {
  return rstd * rstd * (x * mean.bend - mean.tx * (g - mean.g) - mean.gx * (t - mean.t));
}

}  // namespace wgan::math
