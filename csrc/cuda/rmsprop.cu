#include "../common/rmsprop.h"

#include <torch/csrc/stable/library.h>

#include "optimizer.cuh"

namespace wgan {
namespace {

// Arrays: params, grads, square_avgs, then grad_avgs and momentum_buffers where there are any.
template <class T, bool kCentered, bool kMomentum>
struct RmspropOp {
  using type = T;
  using C = compute_t<T>;
  static constexpr int arrays = 3 + kCentered + kMomentum;
  static constexpr unsigned reads = (1u << arrays) - 1, writes = reads & ~0b10u;
  static constexpr bool has_step = false;
  struct Context {
    C lr, grad_factor;
    bool skipped;
  };

  math::Rmsprop<C> settings;
  StepScalars step;
  Interval<T> clip;

  __device__ Context begin(const float*) const {
    return {static_cast<C>(value_of(step.lr_tensor, step.lr)), static_cast<C>(grad_factor(step)), is_skipped(step)};
  }

  __device__ void operator()(T (&x)[arrays], const Context& context) const {
    if (context.skipped) return;
    math::Rmsprop<C> now = settings;
    now.lr = context.lr;
    now.grad_factor = context.grad_factor;
    constexpr int kGradAvg = 3, kBuffer = 3 + kCentered;
    C square_avg = static_cast<C>(x[2]), grad_avg = 0, buffer = 0;
    if constexpr (kCentered) grad_avg = static_cast<C>(x[kGradAvg]);
    if constexpr (kMomentum) buffer = static_cast<C>(x[kBuffer]);
    x[0] = clip(math::rmsprop<kCentered, kMomentum>(static_cast<C>(x[0]), static_cast<C>(x[1]), square_avg, grad_avg,
                                                    buffer, now));
    x[2] = static_cast<T>(square_avg);
    if constexpr (kCentered) x[kGradAvg] = static_cast<T>(grad_avg);
    if constexpr (kMomentum) x[kBuffer] = static_cast<T>(buffer);
  }
};

template <bool kCentered, bool kMomentum>
void rmsprop_all(const Device& device, const std::vector<Parameter>& parameters, const RmspropSettings& s) {
  std::array<int, 3 + kCentered + kMomentum> lists = {0, 1, 2};
  if constexpr (kCentered) lists[3] = 3;
  if constexpr (kMomentum) lists[3 + kCentered] = 4;
  for_each_dtype(parameters, [&](auto type, const auto& run) {
    using T = typename decltype(type)::type;
    const RmspropOp<T, kCentered, kMomentum> op{in_type<compute_t<T>>(s), s.step, Interval<T>(s.step.clip)};
    multi_tensor(device, op, parameters.size(), [&](size_t i) { return run(i, lists); });
  });
}

}  // namespace

void rmsprop_step(const ParameterList& list, const RmspropSettings& s) {
  const std::vector<Parameter>& parameters = list.parameters();
  if (parameters.empty()) return;
  const Device device(list.device_index());
  count_steps(device, parameters, s.step);
  if (s.centered) {
    s.momentum != 0 ? rmsprop_all<true, true>(device, parameters, s) : rmsprop_all<true, false>(device, parameters, s);
  } else {
    s.momentum != 0 ? rmsprop_all<false, true>(device, parameters, s)
                    : rmsprop_all<false, false>(device, parameters, s);
  }
}

}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CUDA, m) {
  m.impl("rmsprop_", TORCH_BOX(&wgan::rmsprop_<aoti_torch_device_type_cuda>));
}
