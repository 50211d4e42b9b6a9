#include "../math/wasserstein.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "../common/checks.h"
#include "sum.h"

namespace wgan {
namespace {

void check_term(const char* name, const Tensor& t, ScalarType type) {
  STD_TORCH_CHECK(t.is_contiguous() && t.scalar_type() == type, "wasserstein_fwd: ", name,
                  " must be contiguous and of the dtype of the others");
}

// The mean of no scores is NaN, as torch's is.
template <class T>
double mean(const std::optional<Tensor>& scores) {
  if (!scores) return 0;
  const int64_t count = scores->numel();
  double result = 0;
  sum_rows<Identity>(data<T>(*scores), 1, count, [&](int64_t, double sum) { result = sum / count; });
  return result;
}

// real, fake: any shape; penalty: one element; each may be absent → []
Tensor wasserstein_fwd(std::optional<Tensor> real, std::optional<Tensor> fake, std::optional<Tensor> penalty,
                       double weight) {
  STD_TORCH_CHECK(real || fake, "wasserstein_fwd: needs the scores of real or of fake samples");
  const Tensor& any = real ? *real : *fake;
  if (real) check_term("real", *real, any.scalar_type());
  if (fake) check_term("fake", *fake, any.scalar_type());
  if (penalty) check_term("penalty", *penalty, any.scalar_type());
  Tensor out = torch::stable::new_empty(any, {});
  dispatch(any.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    const double p = penalty ? static_cast<double>(static_cast<compute_t<T>>(*data<T>(*penalty))) : 0;
    const double loss = math::wasserstein(mean<T>(real), mean<T>(fake), p, penalty ? weight : 0);
    *mutable_data<T>(out) = static_cast<T>(static_cast<compute_t<T>>(loss));
  });
  return out;
}

Tensor filled(const Tensor& like, int64_t count, double value) {
  Tensor out = torch::stable::new_empty(like, {count});
  dispatch(like.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    T* o = mutable_data<T>(out);
    const T fill = static_cast<T>(static_cast<compute_t<T>>(value));
    torch::stable::parallel_for(0, count, kGrain,
                                [=](int64_t begin, int64_t end) { std::fill(o + begin, o + end, fill); });
  });
  return out;
}

// grad: [] → [real_count], [fake_count], []: what the scores and the penalty receive
std::tuple<Tensor, Tensor, Tensor> wasserstein_bwd(const Tensor& grad, int64_t real_count, int64_t fake_count,
                                                   double weight) {
  STD_TORCH_CHECK(grad.dim() == 0, "wasserstein_bwd: grad must be a scalar");
  Tensor penalty_grad = torch::stable::empty_like(grad);
  double g = 0;
  dispatch(grad.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    g = static_cast<double>(static_cast<compute_t<T>>(*data<T>(grad)));
    *mutable_data<T>(penalty_grad) = static_cast<T>(static_cast<compute_t<T>>(g * weight));
  });
  return {filled(grad, real_count, -g / real_count), filled(grad, fake_count, g / fake_count), penalty_grad};
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) {
  m.impl("wasserstein_fwd", TORCH_BOX(&wgan::wasserstein_fwd));
  m.impl("wasserstein_bwd", TORCH_BOX(&wgan::wasserstein_bwd));
}
