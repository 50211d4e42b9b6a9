// What a multi-tensor loop needs to know of each tensor.
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
inline const int32_t kCpu = aoti_torch_device_type_cpu(), kStrided = aoti_torch_layout_strided(),
                     kFloat32 = aoti_torch_dtype_float32(), kFloat64 = aoti_torch_dtype_float64(),
                     kFloat16 = aoti_torch_dtype_float16(), kBFloat16 = aoti_torch_dtype_bfloat16();

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
  int64_t count, dim;
  const int64_t *sizes, *strides;  // the tensor's own
  ScalarType type;
  int32_t device_index;
  bool contiguous;

  // From its sizes and strides.
  void measure() {
    count = 1;
    contiguous = true;
    for (int64_t d = dim - 1; d >= 0; --d) {
      contiguous = contiguous && (sizes[d] == 1 || strides[d] == count);
      count *= sizes[d];
    }
    contiguous = contiguous || count == 0;
  }
};

// An operator's argument, through the stable ABI without a Tensor object: a shared_ptr and a copy per tensor would cost
// more than clipping four weights. device: the kind of device that the kernel runs on, as aoti_torch_device_type_cpu()
// names it.
inline Added read_tensor(AtenTensorHandle tensor, int32_t device, View& view) {
  int32_t actual, dtype, layout;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor, &actual));
  if (actual != device) return Added::device;
  view.device_index = 0;  // there is one CPU, which may be called −1 or 0
  if (device != detail::kCpu) STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(tensor, &view.device_index));
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
  int64_t *sizes, *strides;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(tensor, &view.dim));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(tensor, &sizes));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(tensor, &strides));
  view.sizes = sizes;
  view.strides = strides;
  view.measure();
  view.data = nullptr;
  if (view.count != 0) STABLE_TORCH_ERROR_CODE_CHECK(torch_get_mutable_data_ptr(tensor, &view.data));
  return view.data != nullptr || view.count == 0 ? Added::yes : Added::layout;
}

// Which device of its kind the tensors of a list are on: that of the first.
struct DeviceIndex {
  bool is_that_of(const View& view) {
    if (value == kUnknown) value = view.device_index;
    return view.device_index == value;
  }

  static constexpr int32_t kUnknown = -1;
  int32_t value = kUnknown;
};

// Appends a tensor's memory.
inline Added add_view(const View& view, std::vector<Span>& spans) {
  if (view.count == 0) return Added::yes;
  if (view.contiguous) {
    spans.push_back({view.data, view.count, 1, view.type});
    return Added::yes;
  }
  const int64_t itemsize = view.type == ScalarType::Double ? 8 : view.type == ScalarType::Float ? 4 : 2;
  return detail::add_strided(view.data, view.type, itemsize, view.dim, view.sizes, view.strides, spans);
}

}  // namespace wgan
