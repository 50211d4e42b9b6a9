// w ← clip(w, low, high): Arjovsky et al. 2017, algorithm 1, line 7.
#pragma once

#include "host_device.h"

namespace wgan::math {

// Both comparisons are false for NaN, which therefore stays; fmin/fmax would drop it.
template <class C>
WGAN_HD C clip(C w, C low, C high) {
  return w < low ? low : (high < w ? high : w);
}

}  // namespace wgan::math
