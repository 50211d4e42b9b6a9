#include "../math/layer_norm.h"

#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "layer_norm.cuh"

namespace wgan {
namespace {

constexpr int64_t kSpan = 64;  // samples whose weight gradients one block adds

// x, y: [rows, width]; w, b: [sets, width] or null; mean, rstd: [rows]
template <class T, class C>
__global__ void __launch_bounds__(kThreads) layer_norm_fwd_kernel(const T* x, const T* w, const T* b, T* y, C* mean,
                                                                  C* rstd, const Norm norm, double eps, int lanes) {
  const Team team(norm, lanes);
  if (team.row >= norm.rows) return;
  T* const array[4] = {row_of(y, team), row_of(x, team), weights_of(w, team, row_of(x, team)),
                       weights_of(b, team, row_of(x, team))};
  double total[1] = {}, moments[2];
  if (norm.centered) {
    row_means<0b0010>(array, team, norm.width, total, [](const C(&e)[4], C(&term)[1]) { term[0] += e[1]; });
  }
  const C m = static_cast<C>(total[0]);
  row_means<0b0010>(array, team, norm.width, moments, [=](const C(&e)[4], C(&term)[2]) {
    const C d = e[1] - m;
    term[0] += d;
    term[1] += d * d;
  });
  const C r = math::layer_norm_rstd<C>(moments[1], norm.centered ? moments[0] : 0, eps);
  if (team.lane == 0) {
    mean[team.row] = m;
    rstd[team.row] = r;
  }
  const bool has_w = w != nullptr, has_b = b != nullptr;
  each_of_row<0b1110, 0b0001>(array, team, norm.width, [=](C(&e)[4]) {
    e[0] = math::normalised(e[1], m, r) * (has_w ? e[2] : C(1));
    if (has_b) e[0] += e[3];
  });
}

// delta, x, dx: [rows, width]; w: [sets, width] or null; mean, rstd: [rows]
template <class T, class C>
__global__ void __launch_bounds__(kThreads) layer_norm_bwd_kernel(const T* delta, const T* x, const T* w, const C* mean,
                                                                  const C* rstd, T* dx, const Norm norm, int lanes) {
  const Team team(norm, lanes);
  if (team.row >= norm.rows) return;
  T* const array[4] = {row_of(dx, team), row_of(delta, team), row_of(x, team), weights_of(w, team, row_of(x, team))};
  const C m = mean[team.row], r = rstd[team.row];
  const bool has_w = w != nullptr;
  double means[2];
  row_means<0b1110>(array, team, norm.width, means, [=](const C(&e)[4], C(&term)[2]) {
    const C g = e[1] * (has_w ? e[3] : C(1));
    term[0] += g;
    term[1] += g * math::normalised(e[2], m, r);
  });
  const C g_mean = static_cast<C>(norm.centered ? means[0] : 0), gx_mean = static_cast<C>(means[1]);
  each_of_row<0b1110, 0b0001>(array, team, norm.width, [=](C(&e)[4]) {
    e[0] = math::layer_norm_bwd(e[1] * (has_w ? e[3] : C(1)), math::normalised(e[2], m, r), r, g_mean, gx_mean);
  });
}

// t, delta, x, ddelta, dx: [rows, width]; w: [sets, width] or null; mean, rstd, t_mean, tx_mean: [rows]. With two
// blocks asked for, nvcc takes 64 to 94 registers; left alone it keeps to 64 in the half types, and spills.
template <class T, class C>
__global__ void __launch_bounds__(kThreads, 2)
    layer_norm_bwd_bwd_kernel(const T* t, const T* delta, const T* x, const T* w, const C* mean, const C* rstd,
                              T* ddelta, T* dx, C* t_mean, C* tx_mean, const Norm norm, int lanes) {
  const Team team(norm, lanes);
  if (team.row >= norm.rows) return;
  T* const array[6] = {row_of(ddelta, team), row_of(dx, team), row_of(t, team),
                       row_of(delta, team),  row_of(x, team),  weights_of(w, team, row_of(x, team))};
  const C m = mean[team.row], r = rstd[team.row];
  const bool has_w = w != nullptr;
  double means[5];
  row_means<0b111100>(array, team, norm.width, means, [=](const C(&e)[6], C(&term)[5]) {
    const C g = e[3] * (has_w ? e[5] : C(1)), normal = math::normalised(e[4], m, r);
    term[0] += e[2];
    term[1] += e[2] * normal;
    term[2] += g;
    term[3] += g * normal;
    term[4] += e[2] * g;
  });
  const math::LayerNormMeans<C> of(means, norm.centered);
  if (team.lane == 0) {
    t_mean[team.row] = of.t;
    tx_mean[team.row] = of.tx;
  }
  each_of_row<0b111100, 0b000011>(array, team, norm.width, [=](C(&e)[6]) {
    const C scale = has_w ? e[5] : C(1), normal = math::normalised(e[4], m, r);
    e[0] = scale * math::layer_norm_bwd(e[2], normal, r, of.t, of.tx);
    e[1] = math::layer_norm_bwd_bwd(e[2], e[3] * scale, normal, r, of);
  });
}

// Σ over a span of samples of δ·x̂, or, where there is a t, of δ·P(t); and of δ. A lane has a weight, a warp every
// eighth sample. delta, x, t: [samples, sets, width]; mean, rstd, t_mean, tx_mean: [samples, sets]; dw, db: [spans,
// sets, width], db may be null
template <class T, class C>
__global__ void __launch_bounds__(kThreads)
    layer_norm_weights_kernel(const T* delta, const T* x, const T* t, const C* mean, const C* rstd, const C* t_mean,
                              const C* tx_mean, C* dw, C* db, const Norm norm, int64_t tiles) {
  __shared__ C sums[2][kWarps][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t col = blockIdx.x % tiles * kWarp + lane;
  const int64_t set = blockIdx.x / tiles % norm.sets, span = blockIdx.x / tiles / norm.sets;
  const int64_t first = span * kSpan * norm.sets + set, end = first + kSpan * norm.sets;
  C of_w = 0, of_b = 0;
  for (int64_t row = first + warp * norm.sets; row < end && row < norm.rows && col < norm.width;
       row += kWarps * norm.sets) {
    const int64_t i = row * norm.width + col;
    const C d = static_cast<C>(delta[i]), r = rstd[row];
    C factor = math::normalised(static_cast<C>(x[i]), mean[row], r);
    if (t) factor = math::layer_norm_bwd(static_cast<C>(t[i]), factor, r, t_mean[row], tx_mean[row]);
    of_w += d * factor;
    of_b += d;
  }
  sums[0][warp][lane] = of_w;
  sums[1][warp][lane] = of_b;
  __syncthreads();
  C* const out = warp == 0 ? dw : warp == 1 ? db : nullptr;
  if (!out || col >= norm.width) return;
  C total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) total += sums[warp][w][lane];
  out[(span * norm.sets + set) * norm.width + col] = total;
}

// out[i] = Σ_s partial[s, i]. partial: [spans, count]
template <class C>
__global__ void __launch_bounds__(kThreads)
    layer_norm_spans_kernel(const C* partial, C* out, int64_t spans, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  double sum = 0;
  for (int64_t s = 0; s < spans; ++s) sum += partial[s * count + i];
  out[i] = static_cast<C>(sum);
}

// Lanes to a row, and launches over them.
struct Grid {
  int lanes;
  int64_t blocks;

  explicit Grid(const Norm& norm)
      : lanes(norm.width < kLongRow ? kWarp : kThreads), blocks((norm.rows * lanes + kThreads - 1) / kThreads) {}
};

// dw, db: [sets·width]; t, t_mean, tx_mean, db may be null
template <class T, class C>
void weight_gradients(const Device& device, const Norm& norm, const Tensor& like, const T* delta, const T* x,
                      const T* t, const C* mean, const C* rstd, const C* t_mean, const C* tx_mean, C* dw, C* db) {
  const int64_t count = norm.sets * norm.width, tiles = (norm.width + kWarp - 1) / kWarp;
  const int64_t spans = std::max<int64_t>(1, (norm.samples() + kSpan - 1) / kSpan);
  const Tensor partial = torch::stable::new_empty(like, {spans > 1 ? 2 * spans * count : 0});
  C* const of_w = spans > 1 ? mutable_data<C>(partial) : dw;
  C* const of_b = !db || spans == 1 ? db : of_w + spans * count;
  launch(device, layer_norm_weights_kernel<T, C>, spans * norm.sets * tiles, kThreads, delta, x, t, mean, rstd, t_mean,
         tx_mean, of_w, of_b, norm, tiles);
  if (spans == 1) return;
  const int64_t blocks = (count + kThreads - 1) / kThreads;
  launch(device, layer_norm_spans_kernel<C>, blocks, kThreads, of_w, dw, spans, count);
  if (db) launch(device, layer_norm_spans_kernel<C>, blocks, kThreads, of_b, db, spans, count);
}

// x: [rows·width]; w, b: [sets·width] or absent → y like x, mean, rstd: [rows] in the compute type
std::tuple<Tensor, Tensor, Tensor> layer_norm_fwd(const Tensor& x, std::optional<Tensor> w, std::optional<Tensor> b,
                                                  int64_t width, int64_t sets, bool centered, double eps) {
  const Norm norm("layer_norm_fwd", x, width, sets, centered);
  norm.check_weights("w", x, w);
  norm.check_weights("b", x, b);
  Tensor y = torch::stable::empty_like(x);
  Tensor mean = norm.new_stat(x), rstd = norm.new_stat(x);
  const Device device(x.get_device_index());
  dispatch(x.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const Grid grid(norm);
    launch(device, layer_norm_fwd_kernel<T, C>, grid.blocks, kThreads, data<T>(x), data_or_null<T>(w),
           data_or_null<T>(b), mutable_data<T>(y), mutable_data<C>(mean), mutable_data<C>(rstd), norm, eps, grid.lanes);
  });
  return {y, mean, rstd};
}

// delta, x: [rows·width]; w: [sets·width] or absent; mean, rstd: [rows] → dx like x; dw, db: [sets·width] in the
// compute type; each [0] where it is not asked for
std::tuple<Tensor, Tensor, Tensor> layer_norm_bwd(const Tensor& delta, const Tensor& x, std::optional<Tensor> w,
                                                  const Tensor& mean, const Tensor& rstd, int64_t width, int64_t sets,
                                                  bool centered, bool x_asked, bool weights_asked) {
  const Norm norm("layer_norm_bwd", x, width, sets, centered);
  norm.check_rows("delta", x, delta);
  norm.check_weights("w", x, w);
  norm.check_stats(x, mean, rstd);
  Tensor dx = norm.new_rows(x, x_asked);
  Tensor dw = norm.new_weights(x, weights_asked), db = norm.new_weights(x, weights_asked);
  const Device device(x.get_device_index());
  dispatch(x.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const Grid grid(norm);
    const C *m = data<C>(mean), *r = data<C>(rstd);
    if (x_asked) {
      launch(device, layer_norm_bwd_kernel<T, C>, grid.blocks, kThreads, data<T>(delta), data<T>(x), data_or_null<T>(w),
             m, r, mutable_data<T>(dx), norm, grid.lanes);
    }
    if (weights_asked) {
      weight_gradients<T, C>(device, norm, dw, data<T>(delta), data<T>(x), nullptr, m, r, nullptr, nullptr,
                             mutable_data<C>(dw), mutable_data<C>(db));
    }
  });
  return {dx, dw, db};
}

// t, delta, x: [rows·width]; w, mean, rstd as above → ddelta, dx like x; dw: [sets·width] in the compute type; each [0]
// where it is not asked for
std::tuple<Tensor, Tensor, Tensor> layer_norm_bwd_bwd(const Tensor& t, const Tensor& delta, const Tensor& x,
                                                      std::optional<Tensor> w, const Tensor& mean, const Tensor& rstd,
                                                      int64_t width, int64_t sets, bool centered, bool delta_asked,
                                                      bool x_asked, bool w_asked) {
  const Norm norm("layer_norm_bwd_bwd", x, width, sets, centered);
  norm.check_rows("t", x, t);
  norm.check_rows("delta", x, delta);
  norm.check_weights("w", x, w);
  norm.check_stats(x, mean, rstd);
  // Both are written, asked for or not: a critic asks for both of all norms but its first.
  Tensor ddelta = norm.new_rows(x, true), dx = norm.new_rows(x, true), dw = norm.new_weights(x, w_asked);
  const Tensor t_mean = norm.new_stat(x), tx_mean = norm.new_stat(x);
  const Device device(x.get_device_index());
  dispatch(x.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const Grid grid(norm);
    const C *m = data<C>(mean), *r = data<C>(rstd);
    C *tm = mutable_data<C>(t_mean), *txm = mutable_data<C>(tx_mean);
    launch(device, layer_norm_bwd_bwd_kernel<T, C>, grid.blocks, kThreads, data<T>(t), data<T>(delta), data<T>(x),
           data_or_null<T>(w), m, r, mutable_data<T>(ddelta), mutable_data<T>(dx), tm, txm, norm, grid.lanes);
    if (w_asked) {
      weight_gradients<T, C>(device, norm, dw, data<T>(delta), data<T>(x), data<T>(t), m, r, tm, txm,
                             mutable_data<C>(dw), nullptr);
    }
  });
  return {delta_asked ? ddelta : norm.new_rows(x, false), x_asked ? dx : norm.new_rows(x, false), dw};
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CUDA, m) {
  m.impl("layer_norm_fwd", TORCH_BOX(&wgan::layer_norm_fwd));
  m.impl("layer_norm_bwd", TORCH_BOX(&wgan::layer_norm_bwd));
  m.impl("layer_norm_bwd_bwd", TORCH_BOX(&wgan::layer_norm_bwd_bwd));
}
