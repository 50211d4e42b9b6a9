// The operator rmsprop_, on whatever device: its arguments become a list of parameters and settings.
#pragma once

#include "../math/rmsprop.h"
#include "optimizer.h"

namespace wgan {

struct RmspropSettings {
  StepScalars step;
  double alpha, eps, weight_decay, momentum;
  bool centered;
};

// What the formula needs, in the compute type, but for what may have to be read on the device.
template <class C>
math::Rmsprop<C> in_type(const RmspropSettings& s) {
  return {.alpha = static_cast<C>(s.alpha),
          .one_minus_alpha = static_cast<C>(1 - s.alpha),
          .eps = static_cast<C>(s.eps),
          .weight_decay = static_cast<C>(s.weight_decay),
          .momentum = static_cast<C>(s.momentum)};
}

// One step, on the device. Lists: params, grads, square_avgs, grad_avgs (where centered), momentum_buffers (momentum ≠
// 0).
void rmsprop_step(const ParameterList& list, const RmspropSettings& settings);

// params, grads, square_avgs, grad_avgs, momentum_buffers: tensors of any shapes, each in the order of its parameter,
// the last two lists empty where unused; steps: [] each
template <int32_t (*kDevice)()>
void rmsprop_(const std::vector<Tensor> params, const std::vector<Tensor> grads, const std::vector<Tensor> square_avgs,
              const std::vector<Tensor> grad_avgs, const std::vector<Tensor> momentum_buffers,
              const std::vector<Tensor> steps, std::optional<Tensor> lr_tensor, std::optional<Tensor> grad_scale,
              std::optional<Tensor> found_inf, double lr, double alpha, double eps, double weight_decay,
              double momentum, double clip, bool maximize) {
  ParameterList list;
  add_lists("rmsprop_", kDevice(), list, {&params, &grads, &square_avgs, &grad_avgs, &momentum_buffers}, steps);
  const StepScalars step =
      step_scalars("rmsprop_", kDevice(), list, lr_tensor, grad_scale, found_inf, lr, clip, maximize);
  rmsprop_step(list, {step, alpha, eps, weight_decay, momentum, !grad_avgs.empty()});
}

}  // namespace wgan
