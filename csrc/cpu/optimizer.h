// What the optimizers' loops share.
#pragma once

#include "../common/optimizer.h"
#include "../math/clip.h"
#include "loops.h"

namespace wgan {

// Elements from which on a second thread pays: a step costs several times what a clip does.
constexpr int64_t kStepGrain = kGrain / 4;

inline double value_of(const DeviceScalar& scalar, double otherwise) {
  if (scalar.data == nullptr) return otherwise;
  return scalar.is_double ? *static_cast<const double*>(scalar.data) : *static_cast<const float*>(scalar.data);
}

// Whether a gradient scaler found an infinity: then nothing is written.
inline bool is_skipped(const StepScalars& step) { return value_of(step.found_inf, 0) != 0; }

// ±1/grad_scale.
inline double grad_factor(const StepScalars& step) { return (step.maximize ? -1 : 1) / value_of(step.grad_scale, 1); }

// The two ends of a clip as torch rounds them: to the compute type, then to the storage type.
template <class T>
struct Interval {
  T low, high;

  explicit Interval(double clip)
      : low(static_cast<T>(static_cast<compute_t<T>>(-clip))), high(static_cast<T>(static_cast<compute_t<T>>(clip))) {}

  // Rounds a new weight and clips it.
  T operator()(compute_t<T> w) const { return math::clip<compute_t<T>>(static_cast<T>(w), low, high); }
};

}  // namespace wgan
