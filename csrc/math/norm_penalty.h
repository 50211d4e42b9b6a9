// p = (n − target)², or max(0, n − target)² one-sided, with n = ‖g‖₂: Gulrajani et al. 2017, equation 3 and section 4.
#pragma once

#include "host_device.h"

namespace wgan::math {

template <class C>
WGAN_HD C norm_penalty(C norm, C target, bool one_sided) {
  const C excess = norm - target;
  return one_sided && excess < C(0) ? C(0) : excess * excess;
}

// dp/dg = coefficient·g with coefficient = 2·(n − target)/n; 0 at n = 0, where the norm has no derivative.
template <class C>
WGAN_HD C norm_penalty_bwd_coefficient(C norm, C target, bool one_sided) {
  const C excess = norm - target;
  return norm == C(0) || (one_sided && excess < C(0)) ? C(0) : C(2) * excess / norm;
}

}  // namespace wgan::math
