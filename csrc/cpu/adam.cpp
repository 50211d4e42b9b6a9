#include "../common/adam.h"

#include <torch/csrc/stable/library.h>

#include <cmath>

#include "optimizer.h"

namespace wgan {
namespace {

template <class T, class C>
WGAN_CLONES void adam_run(T* __restrict w, const T* __restrict grad, T* __restrict exp_avg, T* __restrict exp_avg_sq,
                          int64_t count, math::Adam<C> settings, math::AdamCorrection<C> at, Interval<T> clip) {
  each(count, [=](int64_t i) {
    C m = static_cast<C>(exp_avg[i]), v = static_cast<C>(exp_avg_sq[i]);
    w[i] = clip(math::adam(static_cast<C>(w[i]), static_cast<C>(grad[i]), m, v, settings, at));
    exp_avg[i] = static_cast<T>(m);
    exp_avg_sq[i] = static_cast<T>(v);
  });
}

// By parameter. Most of them are at the same step, and two powers cost more than a small parameter.
std::vector<math::AdamCorrection<double>> corrections(const std::vector<Parameter>& parameters, const AdamSettings& s) {
  const double lr = value_of(s.step.lr_tensor, s.step.lr);
  std::vector<math::AdamCorrection<double>> all;
  all.reserve(parameters.size());
  float last = NAN;  // unlike any
  for (const Parameter& p : parameters) {
    if (*p.step != last) {
      last = *p.step;
      all.push_back({lr / (1 - std::pow(s.beta1, last)), 1 / std::sqrt(1 - std::pow(s.beta2, last))});
    } else {
      all.push_back(all.back());
    }
  }
  return all;
}

}  // namespace

void adam_step(const ParameterList& list, const AdamSettings& s) {
  const std::vector<Parameter>& parameters = list.parameters();
  if (is_skipped(s.step)) return;
  for (const Parameter& p : parameters) *p.step += 1;
  const auto all = corrections(parameters, s);
  parallel_items(parameters, kStepGrain, [&](const Parameter& p, int64_t begin, int64_t count) {
    const math::AdamCorrection<double>& at = all[&p - parameters.data()];
    dispatch(p.type, [&](auto type) {
      using T = typename decltype(type)::type;
      using C = compute_t<T>;
      math::Adam<C> settings = in_type<C>(s);
      settings.grad_factor = static_cast<C>(grad_factor(s.step));
      const math::AdamCorrection<C> correction = {static_cast<C>(at.step_size), static_cast<C>(at.root_factor)};
      const auto list = [&](int l) { return static_cast<T*>(p.data[l]) + begin; };
      adam_run(list(0), static_cast<const T*>(list(1)), list(2), list(3), count, settings, correction,
               Interval<T>(s.step.clip));
    });
  });
}

}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) {
  m.impl("adam_", TORCH_BOX(&wgan::adam_<aoti_torch_device_type_cpu>));
}
