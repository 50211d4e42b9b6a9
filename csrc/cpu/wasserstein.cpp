#include "../math/wasserstein.h"

#include <torch/csrc/stable/library.h>

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

// grad: [] → []: what each real score, each fake score and the penalty receive
std::tuple<Tensor, Tensor, Tensor> wasserstein_bwd(const Tensor& grad, int64_t real_count, int64_t fake_count,
                                                   double weight) {
  STD_TORCH_CHECK(grad.dim() == 0, "wasserstein_bwd: grad must be a scalar");
  Tensor real = torch::stable::new_empty(grad, {});
  Tensor fake = torch::stable::new_empty(grad, {});
  Tensor penalty = torch::stable::new_empty(grad, {});
  dispatch(grad.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    const double g = static_cast<double>(static_cast<compute_t<T>>(*data<T>(grad)));
    *mutable_data<T>(real) = static_cast<T>(static_cast<compute_t<T>>(-g / real_count));
    *mutable_data<T>(fake) = static_cast<T>(static_cast<compute_t<T>>(g / fake_count));
    *mutable_data<T>(penalty) = static_cast<T>(static_cast<compute_t<T>>(g * weight));
  });
  return {real, fake, penalty};
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) {
  m.impl("wasserstein_fwd", TORCH_BOX(&wgan::wasserstein_fwd));
  m.impl("wasserstein_bwd", TORCH_BOX(&wgan::wasserstein_bwd));
}
