// v ← α·v + (1 − α)·g²;  w ← w − lr·g / (√v + ε): Hinton 2012, lecture 6e; centered: Graves 2013, equations 38 to 45.
#pragma once

#include <cmath>

#include "host_device.h"

namespace wgan::math {

template <class C>
struct Rmsprop {
  C alpha, one_minus_alpha, eps, weight_decay, momentum;
  C lr = 0;
  C grad_factor = 1;  // ±1/grad_scale: what maximize and a gradient scaler make of the gradient
};

// The new w. square_avg, and where it is used grad_avg and buffer, are replaced by their new values.
template <bool kCentered, bool kMomentum, class C>
WGAN_HD C rmsprop(C w, C grad, C& square_avg, C& grad_avg, C& buffer, const Rmsprop<C>& s) {
  // Without decay w is not looked at: 0·inf would be NaN.
  const C g = s.grad_factor * grad + (s.weight_decay == C(0) ? C(0) : s.weight_decay * w);
  square_avg = s.alpha * square_avg + s.one_minus_alpha * g * g;
  C variance = square_avg;
  if constexpr (kCentered) {
    grad_avg = s.alpha * grad_avg + s.one_minus_alpha * g;
    variance -= grad_avg * grad_avg;
  }
  const C step = g / (std::sqrt(variance) + s.eps);
  if constexpr (kMomentum) {
    buffer = s.momentum * buffer + step;
    return w - s.lr * buffer;
  } else {
    return w - s.lr * step;
  }
}

}  // namespace wgan::math
