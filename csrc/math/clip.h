// w ← clip(w, low, high): Arjovsky et al. 2017, algorithm 1, line 7.
#pragma once

#include "host_device.h"

namespace wgan::math {

// Compared in the compute type C, chosen in the storage type T: nothing has to be rounded. Both comparisons are false
// for NaN, which therefore stays; fmin/fmax would drop it.
template <class C, class T>
WGAN_HD T clip(T w, T low, T high) {
  const C value = static_cast<C>(w);
  T clipped = w;
  if (value < static_cast<C>(low)) clipped = low;
  if (static_cast<C>(high) < value) clipped = high;
  return clipped;
}

}  // namespace wgan::math
