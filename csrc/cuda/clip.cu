#include "../common/clip.h"

#include <torch/csrc/stable/library.h>

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

}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CUDA, m) {
  m.impl("clip_", TORCH_BOX(&wgan::clip_<aoti_torch_device_type_cuda>));
}
