#include "clip.h"

#include <torch/csrc/stable/library.h>

#include "../common/checks.h"
#include "../common/multi_tensor.cuh"
#include "../math/clip.h"

namespace wgan {
namespace {

template <class T>
struct Clip {
  using type = T;
  static constexpr int arrays = 1;
  static constexpr unsigned reads = 1, writes = 1;
  static constexpr bool has_step = false;
  struct Context {};

  T low, high;

  __device__ Context begin(const float*) const { return {}; }
  __device__ void operator()(T (&w)[1], Context) const { w[0] = math::clip<compute_t<T>>(w[0], low, high); }
};

}  // namespace

void clip_spans(const std::vector<Span>& spans, int32_t device_index, double low, double high) {
  if (spans.empty()) return;
  const Device device(device_index);
  for (const ScalarType type : {ScalarType::Float, ScalarType::Double, ScalarType::Half, ScalarType::BFloat16}) {
    dispatch(type, [&](auto t) {
      using T = typename decltype(t)::type;
      using C = compute_t<T>;
      const Clip<T> op{static_cast<T>(static_cast<C>(low)), static_cast<T>(static_cast<C>(high))};
      multi_tensor(device, op, spans.size(), [&](size_t i) -> Run<1> {
        const Span& span = spans[i];
        return {{span.data}, span.type == type ? span.count : 0, span.stride};
      });
    });
  }
}

namespace {

// params: tensors of any shapes, strides and dtypes on one device, clamped in place
void clip_(const std::vector<Tensor> params, double low, double high) {
  std::vector<Span> spans;
  spans.reserve(params.size());
  for (size_t i = 0; i < params.size(); ++i) {
    const Added added = add_tensor(params[i].get(), aoti_torch_device_type_cuda(), spans);
    STD_TORCH_CHECK(added == Added::yes, "clip_: params[", i, "] ", explain(added));
    STD_TORCH_CHECK(params[i].get_device_index() == params[0].get_device_index(), "clip_: params[", i, "] ",
                    explain(Added::device));
  }
  if (!params.empty()) clip_spans(spans, params[0].get_device_index(), low, high);
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CUDA, m) { m.impl("clip_", TORCH_BOX(&wgan::clip_)); }
