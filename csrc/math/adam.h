// m ← β₁·m + (1 − β₁)·g;  v ← β₂·v + (1 − β₂)·g²;  w ← w − lr·m̂ / (√v̂ + ε): Kingma & Ba 2015, algorithm 1.
#pragma once

#include <cmath>

#include "host_device.h"

namespace wgan::math {

template <class C>
struct Adam {
  C beta1, one_minus_beta1, beta2, one_minus_beta2, eps, weight_decay;
  C grad_factor = 1;  // ±1/grad_scale: what maximize and a gradient scaler make of the gradient
};

// m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ), as what they come to at step t.
template <class C>
struct AdamCorrection {
  C step_size;    // lr / (1 − β₁ᵗ)
  C root_factor;  // 1 / √(1 − β₂ᵗ)
};

// The new w. exp_avg and exp_avg_sq are replaced by their new values.
template <class C>
WGAN_HD C adam(C w, C grad, C& exp_avg, C& exp_avg_sq, const Adam<C>& s, const AdamCorrection<C>& at) {
  // Without decay w is not looked at: 0·inf would be NaN.
  const C g = s.grad_factor * grad + (s.weight_decay == C(0) ? C(0) : s.weight_decay * w);
  exp_avg = s.beta1 * exp_avg + s.one_minus_beta1 * g;
  exp_avg_sq = s.beta2 * exp_avg_sq + s.one_minus_beta2 * g * g;
  return w - at.step_size * exp_avg / (std::sqrt(exp_avg_sq) * at.root_factor + s.eps);
}

}  // namespace wgan::math
