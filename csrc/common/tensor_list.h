// What a multi-tensor loop needs to know of each tensor, read through the stable ABI without a Tensor object each: a
// shared_ptr and a copy per tensor would cost more than clipping four weights.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "dispatch.h"
#include "error_code.h"

namespace wgan {

// `count` elements at `data`, `stride` elements apart.
struct Span {
  void* data;
  int64_t count;
  int64_t stride;
  ScalarType type;
};

enum class Added { yes, device, dtype, layout, overlap };

inline const char* explain(Added added) {
  switch (added) {
    case Added::device:
      return "is not on the device of the kernel";
    case Added::dtype:
      return "must be float64, float32, float16 or bfloat16";
    case Added::layout:
      return "must be a strided tensor";
    case Added::overlap:
      return "has elements that share memory (an expanded tensor): clone it first";
    default:
      return "";
  }
}

namespace detail {

// Asked for once: a call each would be a tenth of what reading a tensor costs.
inline const int32_t kStrided = aoti_torch_layout_strided(), kFloat32 = aoti_torch_dtype_float32(),
                     kFloat64 = aoti_torch_dtype_float64(), kFloat16 = aoti_torch_dtype_float16(),
                     kBFloat16 = aoti_torch_dtype_bfloat16();

// Splits a tensor of any strides into spans along its densest dimension, after merging the dimensions that are one run.
inline Added add_strided(void* data, ScalarType type, int64_t itemsize, int64_t dim, const int64_t* sizes,
                         const int64_t* strides, std::vector<Span>& spans) {
  std::vector<int64_t> order;
  for (int64_t d = 0; d < dim; ++d) {
    if (sizes[d] > 1 && strides[d] == 0) return Added::overlap;
    if (sizes[d] > 1) order.push_back(d);
  }
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return strides[a] < strides[b]; });
  std::vector<std::pair<int64_t, int64_t>> runs;  // size, stride; innermost first
  for (const int64_t d : order) {
    if (!runs.empty() && strides[d] == runs.back().first * runs.back().second) {
      runs.back().first *= sizes[d];
    } else {
      runs.emplace_back(sizes[d], strides[d]);
    }
  }
  if (runs.empty()) runs.emplace_back(1, 1);
  int64_t outer = 1;
  for (size_t r = 1; r < runs.size(); ++r) outer *= runs[r].first;
  for (int64_t i = 0; i < outer; ++i) {
    int64_t rest = i, offset = 0;
    for (size_t r = 1; r < runs.size(); ++r) {
      offset += rest % runs[r].first * runs[r].second;
      rest /= runs[r].first;
    }
    spans.push_back({static_cast<char*>(data) + offset * itemsize, runs[0].first, runs[0].second, type});
  }
  return Added::yes;
}

}  // namespace detail

// A tensor's memory as a leaf sees it; nothing is written.
struct View {
  void* data;
  int64_t count;
  ScalarType type;
  bool contiguous;
};

// device: the kind of device that the kernel runs on, as aoti_torch_device_type_cpu() names it.
inline Added read_tensor(AtenTensorHandle tensor, int32_t device, View& view) {
  int32_t actual, dtype, layout;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor, &actual));
  if (actual != device) return Added::device;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_layout(tensor, &layout));
  if (layout != detail::kStrided) return Added::layout;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor, &dtype));
  if (dtype == detail::kFloat32) {
    view.type = ScalarType::Float;
  } else if (dtype == detail::kBFloat16) {
    view.type = ScalarType::BFloat16;
  } else if (dtype == detail::kFloat16) {
    view.type = ScalarType::Half;
  } else if (dtype == detail::kFloat64) {
    view.type = ScalarType::Double;
  } else {
    return Added::dtype;
  }
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_numel(tensor, &view.count));
  view.data = nullptr;
  if (view.count != 0) STABLE_TORCH_ERROR_CODE_CHECK(torch_get_mutable_data_ptr(tensor, &view.data));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_is_contiguous(tensor, &view.contiguous));
  return Added::yes;
}

// Which device of its kind the tensors of a list are on: that of the first. There is one CPU, and nobody is asked.
struct DeviceIndex {
  explicit DeviceIndex(int32_t device) : value(device == aoti_torch_device_type_cpu() ? 0 : kUnknown) {}

  bool is_that_of(AtenTensorHandle tensor) {
    if (is_cpu) return true;
    int32_t index;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(tensor, &index));
    if (value == kUnknown) value = index;
    return index == value;
  }

  static constexpr int32_t kUnknown = -1;
  int32_t value;
  bool is_cpu = value == 0;
};

// Appends a tensor's memory.
inline Added add_tensor(AtenTensorHandle tensor, int32_t device, std::vector<Span>& spans) {
  View view;
  const Added added = read_tensor(tensor, device, view);
  if (added != Added::yes || view.count == 0) return added;
  if (view.contiguous) {
    spans.push_back({view.data, view.count, 1, view.type});
    return Added::yes;
  }
  int64_t dim, *sizes, *strides;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(tensor, &dim));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(tensor, &sizes));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(tensor, &strides));
  const int64_t itemsize = view.type == ScalarType::Double ? 8 : view.type == ScalarType::Float ? 4 : 2;
  return detail::add_strided(view.data, view.type, itemsize, dim, sizes, strides, spans);
}

}  // namespace wgan
