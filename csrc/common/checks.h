// What a leaf relies on. The public functions make it so; these checks guard direct calls of torch.ops.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>

#include "dispatch.h"

namespace wgan {

using torch::stable::Tensor;

inline bool same_layout(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) return false;
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) != b.size(d) || (a.size(d) > 1 && a.stride(d) != b.stride(d))) return false;
  }
  return true;
}

inline bool same_device(const Tensor& a, const Tensor& b) {
  return a.is_cpu() == b.is_cpu() && a.get_device_index() == b.get_device_index();
}

// [B, …] in contiguous or channels-last memory: sample i is the i-th run of numel/B elements.
inline bool is_rows(const Tensor& t) {
  if (t.dim() == 0) return false;
  if (t.is_contiguous()) return true;
  if (t.dim() < 4) return false;
  int64_t expected = 1;
  const auto step = [&](int64_t d) {
    const bool fits = t.size(d) == 1 || t.stride(d) == expected;
    expected *= t.size(d);
    return fits;
  };
  bool fits = step(1);
  for (int64_t d = t.dim() - 1; d >= 2; --d) fits = step(d) && fits;
  return step(0) && fits;
}

inline void check_rows(const char* op, const char* name, const Tensor& t) {
  STD_TORCH_CHECK(is_rows(t), op, ": ", name, " must be [B, …], contiguous or channels-last");
  STD_TORCH_CHECK(is_supported(t.scalar_type()), op, ": ", name, " must be float64, float32, float16 or bfloat16");
}

inline void check_like(const char* op, const char* name, const Tensor& t, const Tensor& other) {
  STD_TORCH_CHECK(same_layout(t, other) && t.scalar_type() == other.scalar_type() && same_device(t, other), op, ": ",
                  name, " must have the shape, strides, dtype and device of the first tensor");
}

// One value per sample, in the compute type of `rows`.
inline void check_per_sample(const char* op, const char* name, const Tensor& t, const Tensor& rows) {
  STD_TORCH_CHECK(t.dim() == 1 && t.size(0) == rows.size(0) && t.is_contiguous() &&
                      t.scalar_type() == compute_type(rows.scalar_type()) && same_device(t, rows),
                  op, ": ", name, " must be a contiguous [B] in the compute type, on the device of the samples");
}

// [count], or absent: one value per channel, for the kernels that run on the CPU alone.
inline void check_channels(const char* op, const char* name, const std::optional<Tensor>& t, int64_t count,
                           ScalarType type = ScalarType::Float) {
  STD_TORCH_CHECK(
      !t || (t->dim() == 1 && t->size(0) == count && t->is_contiguous() && t->is_cpu() && t->scalar_type() == type), op,
      ": ", name, " must be contiguous [", count, "] of ", type == ScalarType::Float ? "float32" : "bfloat16",
      " on the CPU");
}

}  // namespace wgan
