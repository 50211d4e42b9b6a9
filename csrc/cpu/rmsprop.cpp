#include "../common/rmsprop.h"

#include <torch/csrc/stable/library.h>

#include "optimizer.h"

namespace wgan {
namespace {

template <bool kCentered, bool kMomentum, class T, class C>
WGAN_CLONES void rmsprop_run(T* __restrict w, const T* __restrict grad, T* __restrict square_avg,
                             T* __restrict grad_avg, T* __restrict buffer, int64_t count, math::Rmsprop<C> settings,
                             Interval<T> clip) {
  each(count, [=](int64_t i) {
    C v = static_cast<C>(square_avg[i]), g = 0, b = 0;
    if constexpr (kCentered) g = static_cast<C>(grad_avg[i]);
    if constexpr (kMomentum) b = static_cast<C>(buffer[i]);
    w[i] = clip(math::rmsprop<kCentered, kMomentum>(static_cast<C>(w[i]), static_cast<C>(grad[i]), v, g, b, settings));
    square_avg[i] = static_cast<T>(v);
    if constexpr (kCentered) grad_avg[i] = static_cast<T>(g);
    if constexpr (kMomentum) buffer[i] = static_cast<T>(b);
  });
}

template <bool kCentered, bool kMomentum>
void rmsprop_all(const std::vector<Parameter>& parameters, const RmspropSettings& s) {
  parallel_items(parameters, kStepGrain, [&](const Parameter& p, int64_t begin, int64_t count) {
    dispatch(p.type, [&](auto type) {
      using T = typename decltype(type)::type;
      using C = compute_t<T>;
      math::Rmsprop<C> settings = in_type<C>(s);
      settings.lr = static_cast<C>(value_of(s.step.lr_tensor, s.step.lr));
      settings.grad_factor = static_cast<C>(grad_factor(s.step));
      const auto list = [&](int l) { return p.data[l] ? static_cast<T*>(p.data[l]) + begin : nullptr; };
      rmsprop_run<kCentered, kMomentum>(list(0), static_cast<const T*>(list(1)), list(2), list(3), list(4), count,
                                        settings, Interval<T>(s.step.clip));
    });
  });
}

}  // namespace

void rmsprop_step(const ParameterList& list, const RmspropSettings& s) {
  const std::vector<Parameter>& parameters = list.parameters();
  if (is_skipped(s.step)) return;
  for (const Parameter& p : parameters) *p.step += 1;
  if (s.centered) {
    s.momentum != 0 ? rmsprop_all<true, true>(parameters, s) : rmsprop_all<true, false>(parameters, s);
  } else {
    s.momentum != 0 ? rmsprop_all<false, true>(parameters, s) : rmsprop_all<false, false>(parameters, s);
  }
}

}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) {
  m.impl("rmsprop_", TORCH_BOX(&wgan::rmsprop_<aoti_torch_device_type_cpu>));
}
