#include "../math/layer_norm.h"

#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>
#include <type_traits>

#include "layer_norm.h"

namespace wgan {
namespace {

template <class C, bool kPresent, class T>
[[gnu::always_inline]] inline C weight(const T* w, int64_t i) {
  if constexpr (kPresent) return static_cast<C>(w[i]);
  return C(1);
}

template <bool kWeight, bool kBias, class T, class C>
WGAN_CLONES void fwd_rows(const T* x, const T* w, const T* b, T* __restrict y, C* mean, C* rstd, int64_t first,
                          int64_t last, const Norm norm, double eps) {
  const int64_t n = norm.width;
  for (int64_t row = first; row < last; ++row) {
    const T *of_row = x + row * n, *weights = w + row % norm.sets * n, *biases = b + row % norm.sets * n;
    T* __restrict out = y + row * n;
    double sum[1] = {}, moments[2];
    if (norm.centered) {
      row_means<C>(n, sum, [=](int64_t i) { return std::array<C, 1>{static_cast<C>(of_row[i])}; });
    }
    const C m = static_cast<C>(sum[0]);
    row_means<C>(n, moments, [=](int64_t i) {
      const C d = static_cast<C>(of_row[i]) - m;
      return std::array<C, 2>{d, d * d};
    });
    const C r = math::layer_norm_rstd<C>(moments[1], norm.centered ? moments[0] : 0, eps);
    mean[row] = m;
    rstd[row] = r;
    each(n, [=](int64_t i) {
      const C scaled = math::normalised(static_cast<C>(of_row[i]), m, r) * weight<C, kWeight>(weights, i);
      out[i] = static_cast<T>(kBias ? scaled + static_cast<C>(biases[i]) : scaled);
    });
  }
}

template <bool kWeight, class T, class C>
WGAN_CLONES void bwd_rows(const T* delta, const T* x, const T* w, const C* mean, const C* rstd, T* __restrict dx,
                          int64_t first, int64_t last, const Norm norm) {
  const int64_t n = norm.width;
  for (int64_t row = first; row < last; ++row) {
    const T *d = delta + row * n, *of_row = x + row * n, *weights = w + row % norm.sets * n;
    T* __restrict out = dx + row * n;
    const C m = mean[row], r = rstd[row];
    double means[2];
    row_means<C>(n, means, [=](int64_t i) {
      const C g = static_cast<C>(d[i]) * weight<C, kWeight>(weights, i);
      return std::array<C, 2>{g, g * math::normalised(static_cast<C>(of_row[i]), m, r)};
    });
    const C g_mean = static_cast<C>(norm.centered ? means[0] : 0), gx_mean = static_cast<C>(means[1]);
    each(n, [=](int64_t i) {
      const C g = static_cast<C>(d[i]) * weight<C, kWeight>(weights, i);
      const C normal = math::normalised(static_cast<C>(of_row[i]), m, r);
      out[i] = static_cast<T>(math::layer_norm_bwd(g, normal, r, g_mean, gx_mean));
    });
  }
}

// ddelta, dx: null where not asked for; t_mean, tx_mean: [rows], the means of t and t·x̂
template <bool kWeight, class T, class C>
WGAN_CLONES void bwd_bwd_rows(const T* t, const T* delta, const T* x, const T* w, const C* mean, const C* rstd,
                              T* __restrict ddelta, T* __restrict dx, C* t_mean, C* tx_mean, int64_t first,
                              int64_t last, const Norm norm) {
  const int64_t n = norm.width;
  for (int64_t row = first; row < last; ++row) {
    const T *tangent = t + row * n, *d = delta + row * n, *of_row = x + row * n, *weights = w + row % norm.sets * n;
    const C m = mean[row], r = rstd[row];
    double means[5];
    row_means<C>(n, means, [=](int64_t i) {
      const C a = static_cast<C>(tangent[i]), g = static_cast<C>(d[i]) * weight<C, kWeight>(weights, i);
      const C normal = math::normalised(static_cast<C>(of_row[i]), m, r);
      return std::array<C, 5>{a, a * normal, g, g * normal, a * g};
    });
    const math::LayerNormMeans<C> of(means, norm.centered);
    t_mean[row] = of.t;
    tx_mean[row] = of.tx;
    const auto write = [=](auto with_delta, auto with_x) __attribute__((always_inline)) {
      T* __restrict delta_out = ddelta + row * n, * __restrict x_out = dx + row * n;
      each(n, [=](int64_t i) {
        const C a = static_cast<C>(tangent[i]), scale = weight<C, kWeight>(weights, i);
        const C normal = math::normalised(static_cast<C>(of_row[i]), m, r);
        if constexpr (with_delta) {
          delta_out[i] = static_cast<T>(scale * math::layer_norm_bwd(a, normal, r, of.t, of.tx));
        }
        if constexpr (with_x) {
          x_out[i] = static_cast<T>(math::layer_norm_bwd_bwd(a, static_cast<C>(d[i]) * scale, normal, r, of));
        }
      });
    };
    using Yes = std::true_type;
    using No = std::false_type;
    if (ddelta && dx)
      write(Yes(), Yes());
    else if (ddelta)
      write(Yes(), No());
    else if (dx)
      write(No(), Yes());
  }
}

// dw = Σ δ·x̂, db = Σ δ over the samples, of `count` weights of set `set` from `begin` on.
template <class T, class C>
WGAN_CLONES void bwd_weights(const T* delta, const T* x, const C* mean, const C* rstd, C* dw, C* db, int64_t set,
                             int64_t begin, int64_t count, const Norm norm) {
  const int64_t first = set * norm.width + begin;
  sample_sums<2>(norm.samples(), count, {dw + first, db + first}, [=](int64_t sample, C(&term)[2][kTile]) {
    const int64_t row = sample * norm.sets + set;
    const T *d = delta + row * norm.width + begin, *of_row = x + row * norm.width + begin;
    const C m = mean[row], r = rstd[row];
    each(count, [&](int64_t k) {
      const C one = static_cast<C>(d[k]);
      term[0][k] += one * math::normalised(static_cast<C>(of_row[k]), m, r);
      term[1][k] += one;
    });
  });
}

// dw = Σ δ·P(t) over the samples, likewise.
template <class T, class C>
WGAN_CLONES void bwd_bwd_weights(const T* t, const T* delta, const T* x, const C* mean, const C* rstd, const C* t_mean,
                                 const C* tx_mean, C* dw, int64_t set, int64_t begin, int64_t count, const Norm norm) {
  sample_sums<1>(norm.samples(), count, {dw + set * norm.width + begin}, [=](int64_t sample, C(&term)[1][kTile]) {
    const int64_t row = sample * norm.sets + set, offset = row * norm.width + begin;
    const T *tangent = t + offset, *d = delta + offset, *of_row = x + offset;
    const C m = mean[row], r = rstd[row], tm = t_mean[row], txm = tx_mean[row];
    each(count, [&](int64_t k) {
      const C normal = math::normalised(static_cast<C>(of_row[k]), m, r);
      term[0][k] += static_cast<C>(d[k]) * math::layer_norm_bwd(static_cast<C>(tangent[k]), normal, r, tm, txm);
    });
  });
}

// x: [rows·width]; w, b: [sets·width] or absent → y like x, mean, rstd: [rows] in the compute type
std::tuple<Tensor, Tensor, Tensor> layer_norm_fwd(const Tensor& x, std::optional<Tensor> w, std::optional<Tensor> b,
                                                  int64_t width, int64_t sets, bool centered, double eps) {
  const Norm norm("layer_norm_fwd", x, width, sets, centered);
  norm.check_weights("w", x, w);
  norm.check_weights("b", x, b);
  Tensor y = torch::stable::empty_like(x);
  Tensor mean = norm.new_stat(x), rstd = norm.new_stat(x);
  dispatch(x.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const auto run = [&](auto kernel) {
      const T *in = data<T>(x), *weights = data_or_null<T>(w), *biases = data_or_null<T>(b);
      T* out = mutable_data<T>(y);
      C *m = mutable_data<C>(mean), *r = mutable_data<C>(rstd);
      parallel_norm(
          norm, [=](int64_t first, int64_t last) { kernel(in, weights, biases, out, m, r, first, last, norm, eps); });
    };
    if (w && b)
      run(fwd_rows<true, true, T, C>);
    else if (w)
      run(fwd_rows<true, false, T, C>);
    else if (b)
      run(fwd_rows<false, true, T, C>);
    else
      run(fwd_rows<false, false, T, C>);
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
  dispatch(x.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const T *d = data<T>(delta), *in = data<T>(x), *weights = data_or_null<T>(w);
    const C *m = data<C>(mean), *r = data<C>(rstd);
    if (x_asked) {
      const auto kernel = w ? bwd_rows<true, T, C> : bwd_rows<false, T, C>;
      T* out = mutable_data<T>(dx);
      parallel_norm(norm, [=](int64_t first, int64_t last) { kernel(d, in, weights, m, r, out, first, last, norm); });
    }
    if (weights_asked) {
      C *of_w = mutable_data<C>(dw), *of_b = mutable_data<C>(db);
      parallel_weights(norm, [=](int64_t set, int64_t begin, int64_t count) {
        bwd_weights(d, in, m, r, of_w, of_b, set, begin, count, norm);
      });
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
  Tensor ddelta = norm.new_rows(x, delta_asked), dx = norm.new_rows(x, x_asked), dw = norm.new_weights(x, w_asked);
  const Tensor t_mean = norm.new_stat(x), tx_mean = norm.new_stat(x);
  dispatch(x.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const T *a = data<T>(t), *d = data<T>(delta), *in = data<T>(x), *weights = data_or_null<T>(w);
    const C *m = data<C>(mean), *r = data<C>(rstd);
    C *tm = mutable_data<C>(t_mean), *txm = mutable_data<C>(tx_mean);
    const auto kernel = w ? bwd_bwd_rows<true, T, C> : bwd_bwd_rows<false, T, C>;
    T *of_delta = delta_asked ? mutable_data<T>(ddelta) : nullptr, *of_x = x_asked ? mutable_data<T>(dx) : nullptr;
    parallel_norm(norm, [=](int64_t first, int64_t last) {
      kernel(a, d, in, weights, m, r, of_delta, of_x, tm, txm, first, last, norm);
    });
    if (w_asked) {
      C* of_w = mutable_data<C>(dw);
      parallel_weights(norm, [=](int64_t set, int64_t begin, int64_t count) {
        bwd_bwd_weights(a, d, in, m, r, tm, txm, of_w, set, begin, count, norm);
      });
    }
  });
  return {ddelta, dx, dw};
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) {
  m.impl("layer_norm_fwd", TORCH_BOX(&wgan::layer_norm_fwd));
  m.impl("layer_norm_bwd", TORCH_BOX(&wgan::layer_norm_bwd));
  m.impl("layer_norm_bwd_bwd", TORCH_BOX(&wgan::layer_norm_bwd_bwd));
}
