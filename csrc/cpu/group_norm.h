// Sums over the pixels of images in channels-last memory, for each channel and for groups of them.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "../common/checks.h"
#include "loops.h"

namespace wgan {

constexpr int64_t kPixels = 32;  // that are added in the compute type, before their sum goes on in double
constexpr int64_t kSamples = 4;  // a thread's job, so that the order of sums does not depend on the threads

struct Images {
  int64_t samples, pixels, channels, groups;

  Images(const char* op, const Tensor& x, int64_t groups)
      : samples(x.size(0)), channels(x.size(x.dim() - 1)), groups(groups) {
    const ScalarType type = x.scalar_type();
    STD_TORCH_CHECK(x.dim() > 1 && x.is_contiguous() && x.is_cpu() && x.numel() &&
                        (type == ScalarType::Float || type == ScalarType::Double),
                    op,
                    ": x must be contiguous [samples, pixels, channels] of float32 or float64 on the CPU, not empty");
    STD_TORCH_CHECK(groups > 0 && channels % groups == 0, op, ": groups must divide the channels");
    pixels = x.numel() / samples / channels;
  }

  // One number for each channel.
  template <class T>
  std::vector<T> vector_or(const std::optional<Tensor>& w, T value) const {
    return w ? std::vector<T>(data<T>(*w), data<T>(*w) + channels) : std::vector<T>(channels, value);
  }

  int64_t jobs() const { return (samples + kSamples - 1) / kSamples; }

  void check(const char* op, const char* name, const Tensor& x, const Tensor& t) const {
    STD_TORCH_CHECK(t.numel() == x.numel() && t.is_contiguous() && t.is_cpu() && t.scalar_type() == x.scalar_type(), op,
                    ": ", name, " must be contiguous, on the CPU, like x");
  }

  void check_vector(const char* op, const char* name, const Tensor& x, const Tensor& t, int64_t count) const {
    STD_TORCH_CHECK(t.numel() == count && t.is_contiguous() && t.is_cpu() && t.scalar_type() == x.scalar_type(), op,
                    ": ", name, " must have ", count, " elements, contiguous, on the CPU, of x's type");
  }

  // f(first, last, job): samples in parallel.
  template <class F>
  void each_job(const F& f) const {
    const int64_t grain = std::max<int64_t>(1, kGrain / 2 / (kSamples * pixels * channels));
    torch::stable::parallel_for(0, jobs(), grain, [&](int64_t begin, int64_t end) {
      for (int64_t job = begin; job < end; ++job) f(job * kSamples, std::min(samples, (job + 1) * kSamples), job);
    });
  }
};

// What a job needs for each channel: sums in double, and numbers in the compute type.
template <class T, int kSums, int kNumbers>
struct Scratch {
  std::vector<double> sums;
  std::vector<T> numbers;

  explicit Scratch(const Images& of) : sums(kSums * of.channels), numbers((kNumbers + kSums) * of.channels) {}
};

// total[s·channels + c] = Σ over the pixels of what f(pixel, part) adds to part[s·channels + c].
template <int kSums, class T, class F>
[[gnu::always_inline]] inline void pixel_sums(const Images& of, double* total, T* part, const F& f) {
  const int64_t count = kSums * of.channels;
  std::fill(total, total + count, 0.);
  for (int64_t begin = 0; begin < of.pixels; begin += kPixels) {
    std::fill(part, part + count, T(0));
    for (int64_t pixel = begin; pixel < std::min(of.pixels, begin + kPixels); ++pixel) f(pixel, part);
    for (int64_t i = 0; i < count; ++i) total[i] += part[i];
  }
}

// f(group, means): the means over each group of kSums sums, the channels of those from `first` on weighted with w.
template <int kSums, class T, class F>
[[gnu::always_inline]] inline void group_means(const Images& of, const double* total, const T* w, int first,
                                               const F& f) {
  const int64_t width = of.channels / of.groups;
  for (int64_t group = 0; group < of.groups; ++group) {
    double means[kSums] = {};
    for (int64_t c = group * width; c < (group + 1) * width; ++c) {
      for (int s = 0; s < kSums; ++s) {
        means[s] +=
            s >= first && w ? total[s * of.channels + c] * static_cast<double>(w[c]) : total[s * of.channels + c];
      }
    }
    for (double& mean : means) mean /= static_cast<double>(width * of.pixels);
    f(group, means);
  }
}

template <class T>
[[gnu::always_inline]] inline void spread(const Images& of, int64_t group, T value, T* out) {
  const int64_t width = of.channels / of.groups;
  std::fill(out + group * width, out + (group + 1) * width, value);
}

template <class T>
[[gnu::always_inline]] inline void spread(const Images& of, const T* values, T* out) {
  for (int64_t group = 0; group < of.groups; ++group) spread(of, group, values[group], out);
}

// Sums of jobs, in their order.
template <class T>
void add_jobs(const Images& of, const double* parts, int64_t stride, T* out) {
  for (int64_t c = 0; c < of.channels; ++c) {
    double total = 0;
    for (int64_t job = 0; job < of.jobs(); ++job) total += parts[job * stride + c];
    out[c] = static_cast<T>(total);
  }
}

template <class F>
void by_type(const Tensor& x, const F& f) {
  if (x.scalar_type() == ScalarType::Double)
    f(double());
  else
    f(float());
}

}  // namespace wgan
