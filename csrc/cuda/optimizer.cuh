// What the optimizers' kernels share.
#pragma once

#include "../common/multi_tensor.cuh"
#include "../common/optimizer.h"
#include "../math/clip.h"

namespace wgan {

__device__ __forceinline__ double value_of(const DeviceScalar& scalar, double otherwise) {
  if (scalar.data == nullptr) return otherwise;
  return scalar.is_double ? *static_cast<const double*>(scalar.data) : *static_cast<const float*>(scalar.data);
}

// Whether a gradient scaler found an infinity: then nothing is changed.
__device__ __forceinline__ bool is_skipped(const StepScalars& step) { return value_of(step.found_inf, 0) != 0; }

// ±1/grad_scale.
__device__ __forceinline__ double grad_factor(const StepScalars& step) {
  return (step.maximize ? -1 : 1) / value_of(step.grad_scale, 1);
}

// The two ends of a clip as torch rounds them: to the compute type, then to the storage type.
template <class T>
struct Interval {
  T low, high;

  explicit Interval(double clip)
      : low(static_cast<T>(static_cast<compute_t<T>>(-clip))), high(static_cast<T>(static_cast<compute_t<T>>(clip))) {}

  // Rounds a new weight and clips it.
  __device__ T operator()(compute_t<T> w) const { return math::clip<compute_t<T>>(static_cast<T>(w), low, high); }
};

// Counts the step of every parameter, before the launches that read it: within one, some blocks would find it counted
// and some not.
struct Count {
  using type = float;
  static constexpr int arrays = 1;
  static constexpr unsigned reads = 1, writes = 1;
  static constexpr bool has_step = false;
  struct Context {};

  StepScalars step;

  __device__ Context begin(const float*) const { return {}; }
  __device__ void operator()(float (&t)[1], Context) const { t[0] += is_skipped(step) ? 0.0f : 1.0f; }
};

inline void count_steps(const Device& device, const std::vector<Parameter>& parameters, const StepScalars& step) {
  multi_tensor(device, Count{step}, parameters.size(), [&](size_t i) -> Run<1> { return {{parameters[i].step}, 1}; });
}

// Calls f(Type<T>{}, run) for every dtype that a parameter has; run(i, lists) → Run of its arrays of those lists, empty
// where parameter i has another dtype.
template <class F>
void for_each_dtype(const std::vector<Parameter>& parameters, const F& f) {
  for (const ScalarType type : {ScalarType::Float, ScalarType::Double, ScalarType::Half, ScalarType::BFloat16}) {
    const auto has_type = [&](const Parameter& p) { return p.type == type; };
    if (std::none_of(parameters.begin(), parameters.end(), has_type)) continue;
    dispatch(type, [&](auto t) {
      f(t, [&, type](size_t i, const auto& lists) {
        Run<std::tuple_size_v<std::decay_t<decltype(lists)>>> run{};
        for (size_t a = 0; a < lists.size(); ++a) run.data[a] = parameters[i].data[lists[a]];
        run.count = parameters[i].type == type ? parameters[i].count : 0;
        run.step = parameters[i].step;
        return run;
      });
    });
  }
}

}  // namespace wgan
