#include "../math/norm_penalty.h"

#include <torch/csrc/stable/library.h>

#include <cmath>
#include <tuple>

#include "../common/checks.h"
#include "../common/reduction.h"
#include "loops.h"
#include "sum.h"

namespace wgan {
namespace {

template <class T, class C>
WGAN_CLONES void scale(const T* in, const C* factors, T* __restrict out, int64_t width, int64_t begin, int64_t end) {
  each_of_rows(width, begin, end,
               [=](int64_t row, int64_t i) { out[i] = static_cast<T>(static_cast<C>(in[i]) * factors[row]); });
}

// grad: [B, …] → penalty: [B] (none) or [] in grad's dtype, norm: [B] in the compute type
std::tuple<Tensor, Tensor> norm_penalty_fwd(const Tensor& grad, double target, bool one_sided, int64_t reduction) {
  check_rows("norm_penalty_fwd", "grad", grad);
  const int64_t rows = grad.size(0), width = rows == 0 ? 0 : grad.numel() / rows;
  const bool reduced = static_cast<Reduction>(reduction) != Reduction::none;
  Tensor norm = torch::stable::new_empty(grad, {rows}, compute_type(grad.scalar_type()));
  Tensor penalty = reduced ? torch::stable::new_empty(grad, {}) : torch::stable::new_empty(grad, {rows});
  dispatch(grad.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    C* n = mutable_data<C>(norm);
    T* p = mutable_data<T>(penalty);
    sum_rows<Square>(data<T>(grad), rows, width,
                     [=](int64_t row, double sum) { n[row] = static_cast<C>(std::sqrt(sum)); });
    double total = 0;
    for (int64_t i = 0; i < rows; ++i) {
      const C value = math::norm_penalty(n[i], static_cast<C>(target), one_sided);
      total += value;
      if (!reduced) p[i] = static_cast<T>(value);
    }
    if (reduced) {
      *p = static_cast<T>(static_cast<C>(static_cast<Reduction>(reduction) == Reduction::mean ? total / rows : total));
    }
  });
  return {penalty, norm};
}

// penalty_grad: like penalty; grad: [B, …]; norm: [B] in the compute type → d/d grad: [B, …]
Tensor norm_penalty_bwd(const Tensor& penalty_grad, const Tensor& grad, const Tensor& norm, double target,
                        bool one_sided, int64_t reduction) {
  check_rows("norm_penalty_bwd", "grad", grad);
  check_per_sample("norm_penalty_bwd", "norm", norm, grad);
  const int64_t rows = grad.size(0);
  const bool reduced = static_cast<Reduction>(reduction) != Reduction::none;
  STD_TORCH_CHECK(penalty_grad.numel() == (reduced ? 1 : rows) && penalty_grad.is_contiguous() &&
                      penalty_grad.scalar_type() == grad.scalar_type(),
                  "norm_penalty_bwd: penalty_grad must be contiguous, with the shape of the penalty and grad's dtype");
  Tensor out = torch::stable::empty_like(grad);
  if (grad.numel() == 0) return out;
  dispatch(grad.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const T *g = data<T>(grad), *pg = data<T>(penalty_grad);
    const C* n = data<C>(norm);
    T* o = mutable_data<T>(out);
    const C share = static_cast<Reduction>(reduction) == Reduction::mean ? C(1) / static_cast<C>(rows) : C(1);
    std::vector<C> factors(rows);
    for (int64_t row = 0; row < rows; ++row) {
      factors[row] = math::norm_penalty_bwd_coefficient(n[row], static_cast<C>(target), one_sided) * share *
                     static_cast<C>(pg[reduced ? 0 : row]);
    }
    const C* of_rows = factors.data();
    const int64_t width = grad.numel() / rows;
    torch::stable::parallel_for(0, grad.numel(), kGrain / 2,
                                [=](int64_t begin, int64_t end) { scale(g, of_rows, o, width, begin, end); });
  });
  return out;
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) {
  m.impl("norm_penalty_fwd", TORCH_BOX(&wgan::norm_penalty_fwd));
  m.impl("norm_penalty_bwd", TORCH_BOX(&wgan::norm_penalty_bwd));
}
