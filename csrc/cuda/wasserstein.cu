#include "../math/wasserstein.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <tuple>

#include "../common/checks.h"
#include "sum.cuh"

namespace wgan {
namespace {

constexpr int kLossThreads = 512;
// Scores that the one block of the loss sums itself: eight 16-byte loads per thread of float32, about what a second
// launch would take.
constexpr int64_t kDirect = 16384;

// Scores of one kind, or the sums of their chunks.
template <class T>
struct Scores {
  const T* scores = nullptr;        // [count]; null: absent, or given as partial sums
  const double* partial = nullptr;  // [chunks]
  int64_t count = 0, chunks = 0;
  bool present = false;
};

// The mean for thread 0, 0 where absent; of no scores it is NaN, as torch's is.
template <class T>
__device__ double mean(const Scores<T>& s) {
  if (!s.present) return 0;
  const double lane = s.partial ? lane_sum<Identity>(s.partial, 0, s.chunks, threadIdx.x, kLossThreads)
                                : lane_sum<Identity>(s.scores, 0, s.count, threadIdx.x, kLossThreads);
  return block_sum<kLossThreads>(lane) / static_cast<double>(s.count);
}

// out = mean(fake) − mean(real) + weight·penalty. penalty: one element or null; out: []
template <class T>
__global__ void __launch_bounds__(kLossThreads)
    wasserstein_kernel(const Scores<T> real, const Scores<T> fake, const T* penalty, double weight, T* out) {
  using C = compute_t<T>;
  const double real_mean = mean(real), fake_mean = mean(fake);
  if (threadIdx.x != 0) return;
  const double p = penalty ? static_cast<double>(static_cast<C>(*penalty)) : 0;
  *out = static_cast<T>(static_cast<C>(math::wasserstein(real_mean, fake_mean, p, penalty ? weight : 0)));
}

struct Fill {
  static constexpr unsigned reads = 0, writes = 1;
};

// out[i] = value for this block's run of i < count.
template <class T>
__device__ void fill(T* out, double value, int64_t count, int64_t run) {
  const T v = static_cast<T>(static_cast<compute_t<T>>(value));
  T* const array[1] = {out};
  const int64_t lo = blockIdx.x * run, hi = lo + run < count ? lo + run : count;
  stream<Fill>(array, 1, lo, hi, threadIdx.x, kThreads, [&](int64_t, auto& x, int, int) {
#pragma unroll
    for (T& element : x[0].at) element = v;
  });
}

// real = −grad/real_count, fake = grad/fake_count, penalty = weight·grad.
// grad, penalty: []; real: [real_count]; fake: [fake_count]
template <class T>
__global__ void __launch_bounds__(kThreads)
    wasserstein_bwd_kernel(const T* grad, T* real, T* fake, T* penalty, double weight, int64_t real_count,
                           int64_t fake_count, int64_t run) {
  using C = compute_t<T>;
  const double g = static_cast<double>(static_cast<C>(*grad));
  fill(real, -g / static_cast<double>(real_count), real_count, run);
  fill(fake, g / static_cast<double>(fake_count), fake_count, run);
  if (blockIdx.x == 0 && threadIdx.x == 0) *penalty = static_cast<T>(static_cast<C>(g * weight));
}

void check_term(const char* name, const Tensor& t, const Tensor& like) {
  STD_TORCH_CHECK(t.is_contiguous() && t.scalar_type() == like.scalar_type() && same_device(t, like),
                  "wasserstein_fwd: ", name, " must be contiguous, and of the dtype and device of the others");
}

// real, fake: any shape; penalty: one element; each may be absent → []
Tensor wasserstein_fwd(std::optional<Tensor> real, std::optional<Tensor> fake, std::optional<Tensor> penalty,
                       double weight) {
  STD_TORCH_CHECK(real || fake, "wasserstein_fwd: needs the scores of real or of fake samples");
  const Tensor& any = real ? *real : *fake;
  if (real) check_term("real", *real, any);
  if (fake) check_term("fake", *fake, any);
  if (penalty) check_term("penalty", *penalty, any);
  Tensor out = torch::stable::new_empty(any, {});
  const Device device(any.get_device_index());
  dispatch(any.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    std::optional<Tensor> sums[2];  // they live until the loss is launched; its stream then keeps their memory
    const auto scores_of = [&](const std::optional<Tensor>& tensor, std::optional<Tensor>& partial) -> Scores<T> {
      if (!tensor) return {};
      const int64_t count = tensor->numel();
      if (count <= kDirect) return {data<T>(*tensor), nullptr, count, 0, true};
      const Cut cut(1, count, kVector<T>);
      partial = torch::stable::new_empty(any, {cut.chunks}, ScalarType::Double);
      double* p = mutable_data<double>(*partial);
      launch(device, sum_kernel<Identity, T>, cut.blocks(), kThreads, data<T>(*tensor), p, cut);
      return {nullptr, p, count, cut.chunks, true};
    };
    const Scores<T> of_real = scores_of(real, sums[0]), of_fake = scores_of(fake, sums[1]);
    launch(device, wasserstein_kernel<T>, 1, kLossThreads, of_real, of_fake, penalty ? data<T>(*penalty) : nullptr,
           weight, mutable_data<T>(out));
  });
  return out;
}

// grad: [] → [real_count], [fake_count], []: what the scores and the penalty receive
std::tuple<Tensor, Tensor, Tensor> wasserstein_bwd(const Tensor& grad, int64_t real_count, int64_t fake_count,
                                                   double weight) {
  STD_TORCH_CHECK(grad.dim() == 0, "wasserstein_bwd: grad must be a scalar");
  Tensor real = torch::stable::new_empty(grad, {real_count}), fake = torch::stable::new_empty(grad, {fake_count});
  Tensor penalty = torch::stable::empty_like(grad);
  const Device device(grad.get_device_index());
  dispatch(grad.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    const int64_t most = std::max<int64_t>({real_count, fake_count, 1});
    const int64_t run = device.elements_per_block(most, kThreads * kVector<T>);
    launch(device, wasserstein_bwd_kernel<T>, (most + run - 1) / run, kThreads, data<T>(grad), mutable_data<T>(real),
           mutable_data<T>(fake), mutable_data<T>(penalty), weight, real_count, fake_count, run);
  });
  return {real, fake, penalty};
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CUDA, m) {
  m.impl("wasserstein_fwd", TORCH_BOX(&wgan::wasserstein_fwd));
  m.impl("wasserstein_bwd", TORCH_BOX(&wgan::wasserstein_bwd));
}
