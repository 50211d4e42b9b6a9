// L = mean(fake) − mean(real) + weight·penalty: Arjovsky et al. 2017, equation 2; Gulrajani et al. 2017, equation 3.
#pragma once

#include "host_device.h"

namespace wgan::math {

// A term that is absent enters as 0.
template <class C>
WGAN_HD C wasserstein(C real_mean, C fake_mean, C penalty, C weight) {
  return fake_mean - real_mean + weight * penalty;
}

}  // namespace wgan::math
