// Batch normalisation and the activation behind it, over the pixels that they are given: y = a(x̂·w + b), with x̂ of each
// channel's own mean and variance. Pixels of bfloat16 are read as float32, and rounded once where y is written.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <cmath>
#include <optional>
#include <vector>

#include "../common/checks.h"
#include "loops.h"

namespace wgan {
namespace {

constexpr int64_t kRows = 512;  // whose sums are a thread's job, so that their order does not depend on the threads

// sums[channel], squares[channel] of x − shift over rows: in the compute type over 32 rows, in double from there on.
template <class T>
WGAN_CLONES void channel_sums(const T* x, int64_t rows, int64_t channels, const float* shift, double* sums,
                              double* squares) {
  constexpr int64_t kBlock = 32;
  std::vector<float> scratch(2 * channels);
  float *sum = scratch.data(), *square = sum + channels;
  for (int64_t begin = 0; begin < rows; begin += kBlock) {
    std::fill(scratch.begin(), scratch.end(), 0.f);
    for (int64_t row = begin; row < std::min(rows, begin + kBlock); ++row) {
      const T* of_row = x + row * channels;
      each(channels, [=](int64_t c) {
        const float d = static_cast<float>(of_row[c]) - shift[c];
        sum[c] += d;
        square[c] += d * d;
      });
    }
    for (int64_t c = 0; c < channels; ++c) {
      sums[c] += sum[c];
      squares[c] += square[c];
    }
  }
}

// The mean is subtracted first: a large one would cost digits behind the scaling.
template <class T>
WGAN_CLONES void scale_rows(T* x, int64_t rows, int64_t channels, const float* mean, const float* scale,
                            const float* shift, float slope) {
  for (int64_t row = 0; row < rows; ++row) {
    T* __restrict of_row = x + row * channels;
    each(channels, [=](int64_t c) {
      const float y = (static_cast<float>(of_row[c]) - mean[c]) * scale[c] + shift[c];
      of_row[c] = static_cast<T>(y > 0 ? y : y * slope);
    });
  }
}

template <class T>
void normalise(const Tensor& x, const std::optional<Tensor>& w, const std::optional<Tensor>& b,
               const std::optional<Tensor>& mean, const std::optional<Tensor>& variance, double momentum, double eps,
               double slope) {
  const int64_t rows = x.size(0), channels = x.size(1), jobs = (rows + kRows - 1) / kRows;
  T* data = mutable_data<T>(x);
  const std::vector<float> first(data, data + channels);  // near enough to the mean for squares to keep their digits
  std::vector<double> parts(2 * jobs * channels);
  torch::stable::parallel_for(0, jobs, 1, [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; ++job) {
      double* sums = parts.data() + 2 * job * channels;
      channel_sums(data + job * kRows * channels, std::min(kRows, rows - job * kRows), channels, first.data(), sums,
                   sums + channels);
    }
  });
  const float *weights = data_or_null<float>(w), *biases = data_or_null<float>(b);
  std::vector<float> means(channels), scale(channels), shift(channels);
  for (int64_t c = 0; c < channels; ++c) {
    double sum = 0, square = 0;
    for (int64_t job = 0; job < jobs; ++job) {
      sum += parts[2 * job * channels + c];
      square += parts[(2 * job + 1) * channels + c];
    }
    const double count = static_cast<double>(rows), of_batch = first[c] + sum / count;
    const double difference = square - sum * sum / count, deviation = difference < 0 ? 0 : difference;  // NaN stays NaN
    const double of_weight = weights ? weights[c] : 1, a = of_weight / std::sqrt(deviation / count + eps);
    means[c] = static_cast<float>(of_batch);
    scale[c] = static_cast<float>(a);
    shift[c] = static_cast<float>((biases ? biases[c] : 0) - (of_batch - means[c]) * a);
    if (mean) {
      float& m = mutable_data<float>(*mean)[c];
      m = static_cast<float>(m + momentum * (of_batch - m));
    }
    if (variance) {
      float& v = mutable_data<float>(*variance)[c];
      v = static_cast<float>(v + momentum * (deviation / (count - 1) - v));
    }
  }
  torch::stable::parallel_for(0, rows, std::max<int64_t>(1, kGrain / channels), [&](int64_t begin, int64_t end) {
    scale_rows(data + begin * channels, end - begin, channels, means.data(), scale.data(), shift.data(),
               static_cast<float>(slope));
  });
}

// x: [pixels, channels], overwritten; w, b: [channels] or absent; mean, variance: [channels], which move towards the
// batch's by `momentum`, or absent. slope: what a value below 0 is multiplied with.
void batch_norm_(Tensor x, std::optional<Tensor> w, std::optional<Tensor> b, std::optional<Tensor> mean,
                 std::optional<Tensor> variance, double momentum, double eps, double slope) {
  const ScalarType type = x.scalar_type();
  STD_TORCH_CHECK(x.dim() == 2 && x.size(0) > 1 && x.is_contiguous() && x.is_cpu() &&
                      (type == ScalarType::Float || type == ScalarType::BFloat16),
                  "batch_norm_: x must be contiguous [pixels, channels] of float32 or bfloat16 on the CPU, of two ",
                  "pixels or more");
  check_channels("batch_norm_", "w", w, x.size(1));
  check_channels("batch_norm_", "b", b, x.size(1));
  check_channels("batch_norm_", "mean", mean, x.size(1));
  check_channels("batch_norm_", "variance", variance, x.size(1));
  const auto run = type == ScalarType::Float ? normalise<float> : normalise<BFloat16>;
  run(x, w, b, mean, variance, momentum, eps, slope);
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) { m.impl("batch_norm_", TORCH_BOX(&wgan::batch_norm_)); }
