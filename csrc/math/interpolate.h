// x̂ = ε·real + (1 − ε)·fake: Gulrajani et al. 2017, algorithm 1, line 6.
#pragma once

#include "host_device.h"

namespace wgan::math {

// Not fake + ε·(real − fake): that is inexact at ε = 1 and overflows where the two ends differ in sign.
template <class C>
WGAN_HD C interpolate(C real, C fake, C eps) {
  return eps * real + (C(1) - eps) * fake;
}

template <class C>
WGAN_HD C interpolate_bwd_real(C grad, C eps) {
  return eps * grad;
}

template <class C>
WGAN_HD C interpolate_bwd_fake(C grad, C eps) {
  return (C(1) - eps) * grad;
}

}  // namespace wgan::math
