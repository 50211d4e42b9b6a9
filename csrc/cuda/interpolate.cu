#include "../math/interpolate.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "../common/checks.h"
#include "../common/philox.h"
#include "rows.cuh"

namespace wgan {
namespace {

// x̂ = ε·real + (1 − ε)·fake; Eps: where a row's ε comes from.
template <class T, class Eps>
struct Interpolate {
  using type = T;
  using C = compute_t<T>;
  static constexpr int arrays = 3;
  static constexpr unsigned reads = 0b110, writes = 0b001;

  T* array[arrays];  // out, real, fake
  Eps eps;

  __device__ C row(int64_t row, bool first) const { return eps(row, first); }
  __device__ void operator()(T (&x)[arrays], C e) const {
    x[0] = static_cast<T>(math::interpolate(static_cast<C>(x[1]), static_cast<C>(x[2]), e));
  }
};

template <class T>
struct InterpolateBwd {
  using type = T;
  using C = compute_t<T>;
  static constexpr int arrays = 3;
  static constexpr unsigned reads = 0b001, writes = 0b110;

  T* array[arrays];  // grad, real_grad, fake_grad
  const C* eps;

  __device__ C row(int64_t row, bool) const { return eps[row]; }
  __device__ void operator()(T (&x)[arrays], C e) const {
    const C g = static_cast<C>(x[0]);
    x[1] = static_cast<T>(math::interpolate_bwd_real(g, e));
    x[2] = static_cast<T>(math::interpolate_bwd_fake(g, e));
  }
};

template <class C>
struct Given {
  const C* eps;  // [rows]
  __device__ C operator()(int64_t row, bool) const { return eps[row]; }
};

// Every thread draws the ε of its rows again, which costs less than a launch; one of them stores it.
template <class C>
struct Drawn {
  C* eps;  // [rows], written
  uint64_t seed, offset;
  int64_t threads;

  __device__ C operator()(int64_t row, bool first) const {
    const C e = uniform(seed, offset, row, threads);
    if (first) eps[row] = e;
    return e;
  }
};

// eps: [rows], for rows that have no elements.
template <class C>
__global__ void __launch_bounds__(kThreads) draw_kernel(const Drawn<C> eps, int64_t rows) {
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row < rows) eps(row, true);
}

// Arrays are typed alike, whether they are read or written; the masks say which.
template <class T>
T* readable(const Tensor& tensor) {
  return const_cast<T*>(data<T>(tensor));
}

// real, fake: [B, …]; eps: [B] in the compute type → [B, …]
Tensor interpolate_fwd(const Tensor& real, const Tensor& fake, const Tensor& eps) {
  check_rows("interpolate_fwd", "real", real);
  check_like("interpolate_fwd", "fake", fake, real);
  check_per_sample("interpolate_fwd", "eps", eps, real);
  Tensor out = torch::stable::empty_like(real);
  if (real.numel() == 0) return out;
  const Device device(real.get_device_index());
  dispatch(real.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const Interpolate<T, Given<C>> op{{mutable_data<T>(out), readable<T>(real), readable<T>(fake)}, {data<C>(eps)}};
    each_in_rows(device, op, real.size(0), real.numel() / real.size(0));
  });
  return out;
}

// grad: [B, …]; eps: [B] in the compute type → d/d real, d/d fake: [B, …]
std::tuple<Tensor, Tensor> interpolate_bwd(const Tensor& grad, const Tensor& eps) {
  check_rows("interpolate_bwd", "grad", grad);
  check_per_sample("interpolate_bwd", "eps", eps, grad);
  Tensor real_grad = torch::stable::empty_like(grad);
  Tensor fake_grad = torch::stable::empty_like(grad);
  if (grad.numel() == 0) return {real_grad, fake_grad};
  const Device device(grad.get_device_index());
  dispatch(grad.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    const InterpolateBwd<T> op{{readable<T>(grad), mutable_data<T>(real_grad), mutable_data<T>(fake_grad)},
                               data<compute_t<T>>(eps)};
    each_in_rows(device, op, grad.size(0), grad.numel() / grad.size(0));
  });
  return {real_grad, fake_grad};
}

// real, fake: [B, …] → [B, …], and ε: [B] in the compute type: bit for bit the float32 numbers of torch.rand(B) of a
// CUDA generator with that seed and offset
std::tuple<Tensor, Tensor> interpolate_random(const Tensor& real, const Tensor& fake, int64_t seed, int64_t offset) {
  check_rows("interpolate_random", "real", real);
  check_like("interpolate_random", "fake", fake, real);
  const int64_t rows = real.size(0);
  Tensor out = torch::stable::empty_like(real);
  Tensor eps = torch::stable::new_empty(real, {rows}, compute_type(real.scalar_type()));
  if (rows == 0) return {out, eps};
  const Device device(real.get_device_index());
  // What torch spreads a large draw over: as many threads as the device holds at once.
  const int64_t threads = int64_t{device.attribute(cudaDevAttrMultiProcessorCount)} *
                          device.attribute(cudaDevAttrMaxThreadsPerMultiProcessor);
  dispatch(real.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const Drawn<C> draw{mutable_data<C>(eps), static_cast<uint64_t>(seed), static_cast<uint64_t>(offset), threads};
    if (real.numel() == 0) {
      launch(device, draw_kernel<C>, (rows + kThreads - 1) / kThreads, kThreads, draw, rows);
    } else {
      const Interpolate<T, Drawn<C>> op{{mutable_data<T>(out), readable<T>(real), readable<T>(fake)}, draw};
      each_in_rows(device, op, rows, real.numel() / rows);
    }
  });
  return {out, eps};
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CUDA, m) {
  m.impl("interpolate_fwd", TORCH_BOX(&wgan::interpolate_fwd));
  m.impl("interpolate_bwd", TORCH_BOX(&wgan::interpolate_bwd));
  m.impl("interpolate_random", TORCH_BOX(&wgan::interpolate_random));
}
