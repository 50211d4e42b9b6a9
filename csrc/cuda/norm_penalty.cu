#include "../math/norm_penalty.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "../common/checks.h"
#include "../common/reduction.h"
#include "rows.cuh"
#include "sum.cuh"

namespace wgan {
namespace {

constexpr int kFinish = 1024;  // threads of a block that adds partial sums

// n_i = √Σ_c partial_ic, p_i = penalty(n_i); penalty = p, Σp/rows or Σp. A reduction over rows is one block's.
// partial: [rows, chunks]; norm: [rows]; penalty: [rows] or []
template <class T, class C>
__global__ void __launch_bounds__(kFinish)
    norm_penalty_kernel(const double* __restrict__ partial, C* __restrict__ norm, T* __restrict__ penalty, C target,
                        bool one_sided, Reduction reduction, int64_t rows, int64_t chunks, int team) {
  const int teams = kFinish / team, lane = threadIdx.x % team;
  double total = 0;
  // `base` is the same for the whole block: all lanes meet in team_sum.
  for (int64_t base = int64_t{blockIdx.x} * teams; base < rows; base += int64_t{gridDim.x} * teams) {
    const int64_t row = base + threadIdx.x / team;
    double square = 0;
    if (row < rows) {
      for (int64_t c = lane; c < chunks; c += team) square += partial[row * chunks + c];
    }
    square = team_sum(square, team);
    if (row >= rows || lane != 0) continue;
    const C n = static_cast<C>(sqrt(square));
    const C value = math::norm_penalty(n, target, one_sided);
    norm[row] = n;
    if (reduction == Reduction::none) penalty[row] = static_cast<T>(value);
    total += value;
  }
  if (reduction == Reduction::none) return;
  total = block_sum<kFinish>(total);
  if (threadIdx.x != 0) return;
  *penalty = static_cast<T>(static_cast<C>(reduction == Reduction::mean ? total / static_cast<double>(rows) : total));
}

// out = s_i·coefficient(n_i)·grad, s: penalty_grad, for a mean /rows.
template <class T>
struct NormPenaltyBwd {
  using type = T;
  using C = compute_t<T>;
  static constexpr int arrays = 2;
  static constexpr unsigned reads = 0b10, writes = 0b01;

  T* array[arrays];       // out, grad
  const C* norm;          // [rows]
  const T* penalty_grad;  // [rows], or [] with step 0
  int64_t step;
  C target, share;
  bool one_sided;

  __device__ C row(int64_t row, bool) const {
    return math::norm_penalty_bwd_coefficient(norm[row], target, one_sided) * share *
           static_cast<C>(penalty_grad[row * step]);
  }
  __device__ void operator()(T (&x)[arrays], C factor) const { x[0] = static_cast<T>(static_cast<C>(x[1]) * factor); }
};

// grad: [B, …] → penalty: [B] (none) or [] in grad's dtype, norm: [B] in the compute type
std::tuple<Tensor, Tensor> norm_penalty_fwd(const Tensor& grad, double target, bool one_sided, int64_t reduction) {
  check_rows("norm_penalty_fwd", "grad", grad);
  const int64_t rows = grad.size(0), width = rows == 0 ? 0 : grad.numel() / rows;
  const bool reduced = static_cast<Reduction>(reduction) != Reduction::none;
  Tensor norm = torch::stable::new_empty(grad, {rows}, compute_type(grad.scalar_type()));
  Tensor penalty = reduced ? torch::stable::new_empty(grad, {}) : torch::stable::new_empty(grad, {rows});
  const Device device(grad.get_device_index());
  dispatch(grad.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const Cut cut(rows, width, kVector<T>);
    const Tensor partial = torch::stable::new_empty(grad, {rows * cut.chunks}, ScalarType::Double);
    double* p = mutable_data<double>(partial);
    launch(device, sum_kernel<Square, T>, cut.blocks(), kThreads, data<T>(grad), p, cut);
    int team = 1;
    while (team < 32 && team < cut.chunks) team *= 2;
    launch(device, norm_penalty_kernel<T, C>, reduced ? 1 : (rows * team + kFinish - 1) / kFinish, kFinish, p,
           mutable_data<C>(norm), mutable_data<T>(penalty), static_cast<C>(target), one_sided,
           static_cast<Reduction>(reduction), rows, cut.chunks, team);
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
                      penalty_grad.scalar_type() == grad.scalar_type() && same_device(penalty_grad, grad),
                  "norm_penalty_bwd: penalty_grad must be contiguous, with the shape of the penalty and grad's dtype");
  Tensor out = torch::stable::empty_like(grad);
  if (grad.numel() == 0) return out;
  const Device device(grad.get_device_index());
  dispatch(grad.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const bool mean = static_cast<Reduction>(reduction) == Reduction::mean;
    const NormPenaltyBwd<T> op{{mutable_data<T>(out), const_cast<T*>(data<T>(grad))},
                               data<C>(norm),
                               data<T>(penalty_grad),
                               reduced ? 0 : 1,
                               static_cast<C>(target),
                               mean ? C(1) / static_cast<C>(rows) : C(1),
                               one_sided};
    each_in_rows(device, op, rows, grad.numel() / rows);
  });
  return out;
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CUDA, m) {
  m.impl("norm_penalty_fwd", TORCH_BOX(&wgan::norm_penalty_fwd));
  m.impl("norm_penalty_bwd", TORCH_BOX(&wgan::norm_penalty_bwd));
}
