#include "../math/interpolate.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "../common/checks.h"
#include "loops.h"

namespace wgan {
namespace {

template <class T, class C>
WGAN_CLONES void fwd(const T* real, const T* fake, const C* eps, T* __restrict out, int64_t width, int64_t begin,
                     int64_t end) {
  each_of_rows(width, begin, end, [=](int64_t row, int64_t i) {
    out[i] = static_cast<T>(math::interpolate(static_cast<C>(real[i]), static_cast<C>(fake[i]), eps[row]));
  });
}

template <class T, class C>
WGAN_CLONES void bwd(const T* grad, const C* eps, T* __restrict real_grad, T* __restrict fake_grad, int64_t width,
                     int64_t begin, int64_t end) {
  each_of_rows(width, begin, end, [=](int64_t row, int64_t i) {
    const C g = static_cast<C>(grad[i]);
    real_grad[i] = static_cast<T>(math::interpolate_bwd_real(g, eps[row]));
    fake_grad[i] = static_cast<T>(math::interpolate_bwd_fake(g, eps[row]));
  });
}

// real, fake: [B, …]; eps: [B] in the compute type → [B, …]
Tensor interpolate_fwd(const Tensor& real, const Tensor& fake, const Tensor& eps) {
  check_rows("interpolate_fwd", "real", real);
  check_like("interpolate_fwd", "fake", fake, real);
  check_per_sample("interpolate_fwd", "eps", eps, real);
  Tensor out = torch::stable::empty_like(real);
  if (real.numel() == 0) return out;
  dispatch(real.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const T *r = data<T>(real), *f = data<T>(fake);
    const C* e = data<C>(eps);
    T* o = mutable_data<T>(out);
    const int64_t width = real.numel() / real.size(0);
    torch::stable::parallel_for(0, real.numel(), kGrain / 2,
                                [=](int64_t begin, int64_t end) { fwd(r, f, e, o, width, begin, end); });
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
  dispatch(grad.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    const T* g = data<T>(grad);
    const C* e = data<C>(eps);
    T *rg = mutable_data<T>(real_grad), *fg = mutable_data<T>(fake_grad);
    const int64_t width = grad.numel() / grad.size(0);
    torch::stable::parallel_for(0, grad.numel(), kGrain / 2,
                                [=](int64_t begin, int64_t end) { bwd(g, e, rg, fg, width, begin, end); });
  });
  return {real_grad, fake_grad};
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) {
  m.impl("interpolate_fwd", TORCH_BOX(&wgan::interpolate_fwd));
  m.impl("interpolate_bwd", TORCH_BOX(&wgan::interpolate_bwd));
}
