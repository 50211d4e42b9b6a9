// What an optimizer's loop needs to know of each parameter: where it, its gradient and its states lie.
#pragma once

#include <array>

#include "tensor_list.h"

namespace wgan {

constexpr int kMaxLists = 5;  // params, grads and up to three states

struct Parameter {
  std::array<void*, kMaxLists> data;  // by list; null for a list that is empty
  float* step;
  int64_t count;
  ScalarType type;
};

// Sizes and strides, which belong to the tensor.
struct Order {
  int64_t dim;
  const int64_t *sizes, *strides;

  explicit Order(const View& view) : dim(view.dim), sizes(view.sizes), strides(view.strides) {}

  bool same_as(const Order& other, int64_t count) const {
    if (dim != other.dim) return false;
    for (int64_t d = 0; d < dim; ++d) {
      if (sizes[d] != other.sizes[d]) return false;
      if (count > 0 && sizes[d] > 1 && strides[d] != other.strides[d]) return false;
    }
    return true;
  }

  // Whether the elements fill one run of memory: each stride is the product of the dimensions with smaller strides.
  bool is_one_run(int64_t count) const {
    for (int64_t run = 1; run < count;) {
      int64_t d = 0;
      while (d < dim && (sizes[d] == 1 || strides[d] != run)) ++d;
      if (d == dim) return false;
      run *= sizes[d];
    }
    return true;
  }
};

// A number in device memory, read when the kernel runs; absent where data is null.
struct DeviceScalar {
  const void* data = nullptr;
  bool is_double = false;
};

// Gathers the lists of an optimizer step tensor by tensor, params first, which have to live as long.
class ParameterList {
 public:
  // The i-th tensor of a list. False where a kernel cannot take it: it has gaps, or is of another device, dtype, shape
  // or order in memory than its parameter.
  bool add(int list, int64_t i, const View& view) {
    if (!device_index_.is_that_of(view)) return false;
    if (list == 0) {
      parameters_.push_back({{view.data}, nullptr, view.count, view.type});
      orders_.emplace_back(view);
      return view.contiguous || orders_.back().is_one_run(view.count);
    }
    Parameter& parameter = parameters_.at(i);
    parameter.data[list] = view.data;
    return view.type == parameter.type && orders_[i].same_as(Order(view), view.count);
  }

  // The i-th step count, one float32.
  bool add_step(int64_t i, const View& view) {
    if (!device_index_.is_that_of(view)) return false;
    parameters_.at(i).step = static_cast<float*>(view.data);
    return view.type == ScalarType::Float && view.count == 1;
  }

  // A number in device memory.
  bool add_scalar(const View& view, DeviceScalar& scalar) {
    if (!device_index_.is_that_of(view)) return false;
    scalar = {view.data, view.type == ScalarType::Double};
    return view.count == 1 && (view.type == ScalarType::Double || view.type == ScalarType::Float);
  }

  const std::vector<Parameter>& parameters() const { return parameters_; }
  int32_t device_index() const { return device_index_.value; }

 private:
  DeviceIndex device_index_;  // all lie on one
  std::vector<Parameter> parameters_;
  std::vector<Order> orders_;
};

}  // namespace wgan
