// What the optimizers' operators share.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <optional>

#include "../math/clip.h"
#include "parameter_list.h"

namespace wgan {

using torch::stable::Tensor;

// What every step is told beside the optimizer's own settings.
struct StepScalars {
  DeviceScalar lr_tensor, grad_scale, found_inf;
  double lr;    // where there is no lr_tensor
  double clip;  // infinity: none
  bool maximize;
};

WGAN_HD double value_of(const DeviceScalar& scalar, double otherwise) {
  if (scalar.data == nullptr) return otherwise;
  return scalar.is_double ? *static_cast<const double*>(scalar.data) : *static_cast<const float*>(scalar.data);
}

// Whether a gradient scaler found an infinity: then nothing is changed.
WGAN_HD bool is_skipped(const StepScalars& step) { return value_of(step.found_inf, 0) != 0; }

// ±1/grad_scale.
WGAN_HD double grad_factor(const StepScalars& step) { return (step.maximize ? -1 : 1) / value_of(step.grad_scale, 1); }

// The two ends of a clip as torch rounds them: to the compute type, then to the storage type.
template <class T>
struct Interval {
  T low, high;

  explicit Interval(double clip)
      : low(static_cast<T>(static_cast<compute_t<T>>(-clip))), high(static_cast<T>(static_cast<compute_t<T>>(clip))) {}

  // Rounds a new weight and clips it.
  WGAN_HD T operator()(compute_t<T> w) const { return math::clip<compute_t<T>>(static_cast<T>(w), low, high); }
};

// The lists of an operator, params first, for a kernel on this kind of device.
inline void add_lists(const char* op, int32_t device, ParameterList& list,
                      std::initializer_list<const std::vector<Tensor>*> lists, const std::vector<Tensor>& steps) {
  const size_t count = steps.size();
  View view;
  int l = 0;
  for (const std::vector<Tensor>* tensors : lists) {
    STD_TORCH_CHECK(tensors->size() == count || (l > 2 && tensors->empty()), op, ": lists of different lengths");
    for (size_t i = 0; i < tensors->size(); ++i) {
      STD_TORCH_CHECK(read_tensor((*tensors)[i].get(), device, view) == Added::yes && list.add(l, i, view), op,
                      ": tensor ", i, " of list ", l,
                      " must be a dense tensor of float64, float32, float16 or bfloat16 on the device of the kernel, "
                      "of the dtype, shape and strides of its parameter");
    }
    ++l;
  }
  for (size_t i = 0; i < count; ++i) {
    STD_TORCH_CHECK(read_tensor(steps[i].get(), device, view) == Added::yes && list.add_step(i, view), op, ": step ", i,
                    " must be one float32 on the device");
  }
}

inline StepScalars step_scalars(const char* op, int32_t device, ParameterList& list,
                                const std::optional<Tensor>& lr_tensor, const std::optional<Tensor>& grad_scale,
                                const std::optional<Tensor>& found_inf, double lr, double clip, bool maximize) {
  StepScalars step{{}, {}, {}, lr, clip, maximize};
  const auto read = [&](const char* name, const std::optional<Tensor>& tensor, DeviceScalar& scalar) {
    View view;
    STD_TORCH_CHECK(
        !tensor || (read_tensor(tensor->get(), device, view) == Added::yes && list.add_scalar(view, scalar)), op, ": ",
        name, " must be one float32 or float64 on the device");
  };
  read("lr_tensor", lr_tensor, step.lr_tensor);
  read("grad_scale", grad_scale, step.grad_scale);
  read("found_inf", found_inf, step.found_inf);
  return step;
}

}  // namespace wgan
