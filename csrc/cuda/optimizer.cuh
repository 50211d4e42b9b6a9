// What the optimizers' kernels share.
#pragma once

#include "../common/multi_tensor.cuh"
#include "../common/optimizer.h"

namespace wgan {

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
