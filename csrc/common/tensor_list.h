// What a multi-tensor loop needs to know of each tensor, read through the stable ABI without a Tensor object each: a
// shared_ptr and a copy per tensor would cost more than clipping four weights.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "dispatch.h"

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
      return "must be on the CPU";
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

// Appends the memory of a CPU tensor; writes nothing into it.
inline Added add_tensor(AtenTensorHandle tensor, std::vector<Span>& spans) {
  int32_t device, dtype, layout;
  int64_t count;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor, &device));
  if (device != aoti_torch_device_type_cpu()) return Added::device;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_layout(tensor, &layout));
  if (layout != aoti_torch_layout_strided()) return Added::layout;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor, &dtype));
  ScalarType type;
  if (dtype == aoti_torch_dtype_float32()) {
    type = ScalarType::Float;
  } else if (dtype == aoti_torch_dtype_bfloat16()) {
    type = ScalarType::BFloat16;
  } else if (dtype == aoti_torch_dtype_float16()) {
    type = ScalarType::Half;
  } else if (dtype == aoti_torch_dtype_float64()) {
    type = ScalarType::Double;
  } else {
    return Added::dtype;
  }
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_numel(tensor, &count));
  if (count == 0) return Added::yes;
  void* data;
  bool contiguous;
  STABLE_TORCH_ERROR_CODE_CHECK(torch_get_mutable_data_ptr(tensor, &data));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_is_contiguous(tensor, &contiguous));
  if (contiguous) {
    spans.push_back({data, count, 1, type});
    return Added::yes;
  }
  int64_t dim, *sizes, *strides;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(tensor, &dim));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(tensor, &sizes));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(tensor, &strides));
  const int64_t itemsize = type == ScalarType::Double ? 8 : type == ScalarType::Float ? 4 : 2;
  return detail::add_strided(data, type, itemsize, dim, sizes, strides, spans);
}

}  // namespace wgan
