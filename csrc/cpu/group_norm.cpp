// Group normalisation of images in channels-last memory, y = x̂·w + b, with the mean and the variance of a sample's
// pixels in the channels of one group: math/layer_norm.h has the formulas. All loops go along the channels, and a
// sample stays in the cache between its passes.
#include "group_norm.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "../math/layer_norm.h"

namespace wgan {
namespace {

template <class T>
WGAN_CLONES void fwd_samples(const Images of, const T* x, const T* w, const T* b, T* y, T* mean, T* rstd, int64_t first,
                             int64_t last, double eps, double* sums, T* numbers) {
  const int64_t n = of.channels;
  T *m = numbers, *scale = m + n, *part = scale + n;
  for (int64_t sample = first; sample < last; ++sample) {
    const T* in = x + sample * of.pixels * n;
    T *out = y + sample * of.pixels * n, *means = mean + sample * of.groups, *rstds = rstd + sample * of.groups;
    pixel_sums<1>(of, sums, part, [=](int64_t pixel, T* sum) {
      const T* row = in + pixel * n;
      each(n, [=](int64_t c) { sum[c] += row[c]; });
    });
    group_means<1, T>(of, sums, nullptr, 0,
                      [&](int64_t group, const double (&found)[1]) { means[group] = static_cast<T>(found[0]); });
    spread(of, means, m);
    pixel_sums<2>(of, sums, part, [=](int64_t pixel, T* sum) {
      const T* row = in + pixel * n;
      T* square = sum + n;
      each(n, [=](int64_t c) {
        const T d = row[c] - m[c];
        sum[c] += d;
        square[c] += d * d;
      });
    });
    group_means<2, T>(of, sums, nullptr, 0, [&](int64_t group, const double (&found)[2]) {
      rstds[group] = math::layer_norm_rstd<T>(found[1], found[0], eps);
    });
    spread(of, rstds, scale);
    for (int64_t pixel = 0; pixel < of.pixels; ++pixel) {
      const T* row = in + pixel * n;
      T* __restrict to = out + pixel * n;
      each(n, [=](int64_t c) { to[c] = math::normalised(row[c], m[c], scale[c]) * w[c] + b[c]; });
    }
  }
}

// of_w, of_b: [channels], to which the samples' Σ δ·x̂ and Σ δ are added. dx: null where not asked for.
template <class T>
WGAN_CLONES void bwd_samples(const Images of, const T* delta, const T* x, const T* w, const T* mean, const T* rstd,
                             T* dx, double* of_w, double* of_b, int64_t first, int64_t last, double* sums, T* numbers) {
  const int64_t n = of.channels;
  T *m = numbers, *r = m + n, *g_mean = r + n, *gx_mean = g_mean + n, *part = gx_mean + n;
  for (int64_t sample = first; sample < last; ++sample) {
    const T *in = x + sample * of.pixels * n, *d = delta + sample * of.pixels * n;
    spread(of, mean + sample * of.groups, m);
    spread(of, rstd + sample * of.groups, r);
    pixel_sums<2>(of, sums, part, [=](int64_t pixel, T* sum) {
      const T *row = in + pixel * n, *g = d + pixel * n;
      T* with_x = sum + n;
      each(n, [=](int64_t c) {
        sum[c] += g[c];
        with_x[c] += g[c] * math::normalised(row[c], m[c], r[c]);
      });
    });
    for (int64_t c = 0; c < n; ++c) {
      of_b[c] += sums[c];
      of_w[c] += sums[n + c];
    }
    if (!dx) continue;
    group_means<2>(of, sums, w, 0, [&](int64_t group, const double (&found)[2]) {
      spread(of, group, static_cast<T>(found[0]), g_mean);
      spread(of, group, static_cast<T>(found[1]), gx_mean);
    });
    for (int64_t pixel = 0; pixel < of.pixels; ++pixel) {
      const T *row = in + pixel * n, *g = d + pixel * n;
      T* __restrict to = dx + (sample * of.pixels + pixel) * n;
      each(n, [=](int64_t c) {
        to[c] = math::layer_norm_bwd(g[c] * w[c], math::normalised(row[c], m[c], r[c]), r[c], g_mean[c], gx_mean[c]);
      });
    }
  }
}

// of_w: [channels], to which the samples' Σ δ·P(t) is added.
template <class T>
WGAN_CLONES void bwd_bwd_samples(const Images of, const T* t, const T* delta, const T* x, const T* w, const T* mean,
                                 const T* rstd, T* ddelta, T* dx, double* of_w, int64_t first, int64_t last,
                                 double* sums, T* numbers) {
  const int64_t n = of.channels;
  T *m = numbers, *r = m + n, *t_mean = r + n, *tx_mean = t_mean + n, *g_mean = tx_mean + n, *gx_mean = g_mean + n;
  T *bend = gx_mean + n, *part = bend + n;
  for (int64_t sample = first; sample < last; ++sample) {
    const int64_t offset = sample * of.pixels * n;
    const T *in = x + offset, *d = delta + offset, *tangent = t + offset;
    spread(of, mean + sample * of.groups, m);
    spread(of, rstd + sample * of.groups, r);
    pixel_sums<5>(of, sums, part, [=](int64_t pixel, T* sum) {  // t, t·x̂, δ, δ·x̂, t·δ
      const T *row = in + pixel * n, *g = d + pixel * n, *a = tangent + pixel * n;
      T *sum_tx = sum + n, *sum_d = sum + 2 * n, *sum_dx = sum + 3 * n, *sum_td = sum + 4 * n;
      each(n, [=](int64_t c) {
        const T normal = math::normalised(row[c], m[c], r[c]);
        sum[c] += a[c];
        sum_tx[c] += a[c] * normal;
        sum_d[c] += g[c];
        sum_dx[c] += g[c] * normal;
        sum_td[c] += a[c] * g[c];
      });
    });
    group_means<5>(of, sums, w, 2, [&](int64_t group, const double (&found)[5]) {
      const math::LayerNormMeans<T> means(found, true);
      spread(of, group, means.t, t_mean);
      spread(of, group, means.tx, tx_mean);
      spread(of, group, means.g, g_mean);
      spread(of, group, means.gx, gx_mean);
      spread(of, group, means.bend, bend);
    });
    for (int64_t c = 0; c < n; ++c) {
      const double of_t = t_mean[c], of_tx = tx_mean[c];
      of_w[c] += r[c] * (sums[4 * n + c] - of_t * sums[2 * n + c] - of_tx * sums[3 * n + c]);
    }
    for (int64_t pixel = 0; pixel < of.pixels; ++pixel) {
      const T *row = in + pixel * n, *g = d + pixel * n, *a = tangent + pixel * n;
      T* __restrict to_delta = ddelta + offset + pixel * n, * __restrict to_x = dx + offset + pixel * n;
      each(n, [=](int64_t c) {
        const T normal = math::normalised(row[c], m[c], r[c]), of_delta = g[c] * w[c];
        to_delta[c] = w[c] * math::layer_norm_bwd(a[c], normal, r[c], t_mean[c], tx_mean[c]);
        to_x[c] =
            r[c] * r[c] * (normal * bend[c] - tx_mean[c] * (of_delta - g_mean[c]) - gx_mean[c] * (a[c] - t_mean[c]));
      });
    }
  }
}

// x: [samples, …, channels]; w, b: [channels] or absent → y like x, mean, rstd: [samples·groups]
std::tuple<Tensor, Tensor, Tensor> group_norm_fwd(const Tensor& x, std::optional<Tensor> w, std::optional<Tensor> b,
                                                  int64_t groups, double eps) {
  const Images of("group_norm_fwd", x, groups);
  if (w) of.check_vector("group_norm_fwd", "w", x, *w, of.channels);
  if (b) of.check_vector("group_norm_fwd", "b", x, *b, of.channels);
  Tensor y = torch::stable::empty_like(x), mean = torch::stable::new_empty(x, {of.samples * groups});
  Tensor rstd = torch::stable::new_empty(x, {of.samples * groups});
  by_type(x, [&](auto type) {
    using T = decltype(type);
    const std::vector<T> weights = of.vector_or<T>(w, 1), biases = of.vector_or<T>(b, 0);
    const T* in = data<T>(x);
    T *out = mutable_data<T>(y), *m = mutable_data<T>(mean), *r = mutable_data<T>(rstd);
    of.each_job([&](int64_t first, int64_t last, int64_t) {
      Scratch<T, 2, 2> own(of);
      fwd_samples(of, in, weights.data(), biases.data(), out, m, r, first, last, eps, own.sums.data(),
                  own.numbers.data());
    });
  });
  return {y, mean, rstd};
}

// delta, x: [samples, …, channels]; w: [channels] or absent; mean, rstd: [samples·groups] → dx like x, [0] where it is
// not asked for; dw, db: [channels]
std::tuple<Tensor, Tensor, Tensor> group_norm_bwd(const Tensor& delta, const Tensor& x, std::optional<Tensor> w,
                                                  const Tensor& mean, const Tensor& rstd, int64_t groups,
                                                  bool x_asked) {
  const Images of("group_norm_bwd", x, groups);
  of.check("group_norm_bwd", "delta", x, delta);
  if (w) of.check_vector("group_norm_bwd", "w", x, *w, of.channels);
  of.check_vector("group_norm_bwd", "mean", x, mean, of.samples * groups);
  of.check_vector("group_norm_bwd", "rstd", x, rstd, of.samples * groups);
  Tensor dx = x_asked ? torch::stable::empty_like(x) : torch::stable::new_empty(x, {0});
  Tensor dw = torch::stable::new_empty(x, {of.channels}), db = torch::stable::new_empty(x, {of.channels});
  std::vector<double> parts(2 * of.jobs() * of.channels);
  by_type(x, [&](auto type) {
    using T = decltype(type);
    const std::vector<T> weights = of.vector_or<T>(w, 1);
    const T *d = data<T>(delta), *in = data<T>(x), *m = data<T>(mean), *r = data<T>(rstd);
    T* out = x_asked ? mutable_data<T>(dx) : nullptr;
    of.each_job([&](int64_t first, int64_t last, int64_t job) {
      Scratch<T, 2, 4> own(of);
      double* sums = parts.data() + 2 * job * of.channels;
      bwd_samples(of, d, in, weights.data(), m, r, out, sums, sums + of.channels, first, last, own.sums.data(),
                  own.numbers.data());
    });
    add_jobs(of, parts.data(), 2 * of.channels, mutable_data<T>(dw));
    add_jobs(of, parts.data() + of.channels, 2 * of.channels, mutable_data<T>(db));
  });
  return {dx, dw, db};
}

// t, delta, x, w, mean, rstd as above → ddelta, dx like x; dw: [channels]
std::tuple<Tensor, Tensor, Tensor> group_norm_bwd_bwd(const Tensor& t, const Tensor& delta, const Tensor& x,
                                                      std::optional<Tensor> w, const Tensor& mean, const Tensor& rstd,
                                                      int64_t groups) {
  const Images of("group_norm_bwd_bwd", x, groups);
  of.check("group_norm_bwd_bwd", "t", x, t);
  of.check("group_norm_bwd_bwd", "delta", x, delta);
  if (w) of.check_vector("group_norm_bwd_bwd", "w", x, *w, of.channels);
  of.check_vector("group_norm_bwd_bwd", "mean", x, mean, of.samples * groups);
  of.check_vector("group_norm_bwd_bwd", "rstd", x, rstd, of.samples * groups);
  Tensor ddelta = torch::stable::empty_like(x), dx = torch::stable::empty_like(x);
  Tensor dw = torch::stable::new_empty(x, {of.channels});
  std::vector<double> parts(of.jobs() * of.channels);
  by_type(x, [&](auto type) {
    using T = decltype(type);
    const std::vector<T> weights = of.vector_or<T>(w, 1);
    const T *a = data<T>(t), *d = data<T>(delta), *in = data<T>(x), *m = data<T>(mean), *r = data<T>(rstd);
    T *of_delta = mutable_data<T>(ddelta), *of_x = mutable_data<T>(dx);
    of.each_job([&](int64_t first, int64_t last, int64_t job) {
      Scratch<T, 5, 7> own(of);
      bwd_bwd_samples(of, a, d, in, weights.data(), m, r, of_delta, of_x, parts.data() + job * of.channels, first, last,
                      own.sums.data(), own.numbers.data());
    });
    add_jobs(of, parts.data(), of.channels, mutable_data<T>(dw));
  });
  return {ddelta, dx, dw};
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) {
  m.impl("group_norm_fwd", TORCH_BOX(&wgan::group_norm_fwd));
  m.impl("group_norm_bwd", TORCH_BOX(&wgan::group_norm_bwd));
  m.impl("group_norm_bwd_bwd", TORCH_BOX(&wgan::group_norm_bwd_bwd));
}
