// The operator adam_, on whatever device: its arguments become a list of parameters and settings.
#pragma once

#include "../math/adam.h"
#include "optimizer.h"

namespace wgan {

struct AdamSettings {
  StepScalars step;
  double beta1, beta2, eps, weight_decay;
};

// What the formula needs, in the compute type, but for what may have to be read on the device.
template <class C>
math::Adam<C> in_type(const AdamSettings& s) {
  return {.beta1 = static_cast<C>(s.beta1),
          .one_minus_beta1 = static_cast<C>(1 - s.beta1),
          .beta2 = static_cast<C>(s.beta2),
          .one_minus_beta2 = static_cast<C>(1 - s.beta2),
          .eps = static_cast<C>(s.eps),
          .weight_decay = static_cast<C>(s.weight_decay)};
}

// One step, on the device. Lists: params, grads, exp_avgs, exp_avg_sqs.
void adam_step(const ParameterList& list, const AdamSettings& settings);

// params, grads, exp_avgs, exp_avg_sqs: tensors of any shapes, each in the order of its parameter; steps: [] each
template <int32_t (*kDevice)()>
void adam_(const std::vector<Tensor> params, const std::vector<Tensor> grads, const std::vector<Tensor> exp_avgs,
           const std::vector<Tensor> exp_avg_sqs, const std::vector<Tensor> steps, std::optional<Tensor> lr_tensor,
           std::optional<Tensor> grad_scale, std::optional<Tensor> found_inf, double lr, double beta1, double beta2,
           double eps, double weight_decay, double clip, bool maximize) {
  ParameterList list;
  add_lists("adam_", kDevice(), list, {&params, &grads, &exp_avgs, &exp_avg_sqs}, steps);
  const StepScalars step = step_scalars("adam_", kDevice(), list, lr_tensor, grad_scale, found_inf, lr, clip, maximize);
  adam_step(list, {step, beta1, beta2, eps, weight_decay});
}

}  // namespace wgan
