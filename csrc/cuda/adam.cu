#include "../common/adam.h"

#include <torch/csrc/stable/library.h>

#include "optimizer.cuh"

namespace wgan {
namespace {

// Arrays: params, grads, exp_avgs, exp_avg_sqs.
template <class T>
struct AdamOp {
  using type = T;
  using C = compute_t<T>;
  static constexpr int arrays = 4;
  static constexpr unsigned reads = 0b1111, writes = 0b1101;
  static constexpr bool has_step = true;
  struct Context {
    C grad_factor;
    math::AdamCorrection<C> at;
    bool skipped;
  };

  math::Adam<C> settings;
  StepScalars step;
  double beta1, beta2;
  Interval<T> clip;

  // The two powers are one thread's work: in double they are slow on most devices.
  __device__ Context begin(const float* count) const {
    __shared__ math::AdamCorrection<double> at;
    if (threadIdx.x == 0) {
      const double t = *count;
      at.step_size = value_of(step.lr_tensor, step.lr) / (1 - pow(beta1, t));
      at.root_factor = 1 / sqrt(1 - pow(beta2, t));
    }
    __syncthreads();
    return {static_cast<C>(grad_factor(step)),
            {static_cast<C>(at.step_size), static_cast<C>(at.root_factor)},
            is_skipped(step)};
  }

  __device__ void operator()(T (&x)[arrays], const Context& context) const {
    if (context.skipped) return;
    math::Adam<C> now = settings;
    now.grad_factor = context.grad_factor;
    C exp_avg = static_cast<C>(x[2]), exp_avg_sq = static_cast<C>(x[3]);
    x[0] = clip(math::adam(static_cast<C>(x[0]), static_cast<C>(x[1]), exp_avg, exp_avg_sq, now, context.at));
    x[2] = static_cast<T>(exp_avg);
    x[3] = static_cast<T>(exp_avg_sq);
  }
};

}  // namespace

void adam_step(const ParameterList& list, const AdamSettings& s) {
  const std::vector<Parameter>& parameters = list.parameters();
  if (parameters.empty()) return;
  const Device device(list.device_index());
  count_steps(device, parameters, s.step);
  constexpr std::array<int, 4> lists = {0, 1, 2, 3};
  for_each_dtype(parameters, [&](auto type, const auto& run) {
    using T = typename decltype(type)::type;
    const AdamOp<T> op{in_type<compute_t<T>>(s), s.step, s.beta1, s.beta2, Interval<T>(s.step.clip)};
    multi_tensor(device, op, parameters.size(), [&](size_t i) { return run(i, lists); });
  });
}

}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CUDA, m) {
  m.impl("adam_", TORCH_BOX(&wgan::adam_<aoti_torch_device_type_cuda>));
}
