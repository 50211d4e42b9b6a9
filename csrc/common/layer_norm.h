// What the leaves of layer_norm rely on and make, on either device; and a row's numbers from its sums.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <optional>

#include "../math/layer_norm.h"
#include "checks.h"

namespace wgan {

// [rows, width] memory, each row normalised by itself; row i has the weights of set i mod sets, of `width` each.
struct Norm {
  const char* op;
  int64_t rows, sets, width;
  bool centered;

  Norm(const char* op_, const Tensor& x, int64_t width_, int64_t sets_, bool centered_)
      : op(op_), rows(width_ > 0 ? x.numel() / width_ : 0), sets(sets_), width(width_), centered(centered_) {
    STD_TORCH_CHECK(x.is_contiguous() && is_supported(x.scalar_type()), op,
                    ": x must be contiguous, in float64, float32, float16 or bfloat16");
    STD_TORCH_CHECK(width >= 0 && rows * width == x.numel() && sets > 0 && rows % sets == 0, op,
                    ": width must divide the elements of x, and sets the rows");
  }

  int64_t samples() const { return rows / sets; }

  void check_rows(const char* name, const Tensor& x, const Tensor& t) const {
    STD_TORCH_CHECK(t.is_contiguous(), op, ": ", name, " must be contiguous");
    check_like(op, name, t, x);
  }
  void check_weights(const char* name, const Tensor& x, const std::optional<Tensor>& t) const {
    STD_TORCH_CHECK(!t || (t->is_contiguous() && t->scalar_type() == x.scalar_type() && same_device(*t, x) &&
                           t->numel() == sets * width),
                    op, ": ", name,
                    " must be contiguous, with sets·width elements, in the dtype and on the device of x");
  }
  void check_stats(const Tensor& x, const Tensor& mean, const Tensor& rstd) const {
    for (const Tensor* t : {&mean, &rstd}) {
      STD_TORCH_CHECK(t->is_contiguous() && t->numel() == rows && t->scalar_type() == compute_type(x.scalar_type()) &&
                          same_device(*t, x),
                      op, ": mean and rstd must be contiguous [rows] in the compute type, on the device of x");
    }
  }

  Tensor new_stat(const Tensor& x) const { return torch::stable::new_empty(x, {rows}, compute_type(x.scalar_type())); }
  Tensor new_rows(const Tensor& x, bool asked) const {
    return asked ? torch::stable::empty_like(x) : torch::stable::new_empty(x, {0});
  }
  Tensor new_weights(const Tensor& x, bool asked) const {
    return torch::stable::new_empty(x, {asked ? sets * width : 0}, compute_type(x.scalar_type()));
  }
};

}  // namespace wgan
