#include "../common/clip.h"

#include <torch/csrc/stable/library.h>

#include "../math/clip.h"
#include "loops.h"

namespace wgan {
namespace {

template <class T>
WGAN_CLONES void clip_run(T* w, int64_t count, T low, T high) {
  each(count, [=](int64_t i) { w[i] = math::clip<compute_t<T>>(w[i], low, high); });
}

template <class T>
void clip_strided_run(T* w, int64_t count, int64_t stride, T low, T high) {
  for (int64_t i = 0; i < count; ++i) w[i * stride] = math::clip<compute_t<T>>(w[i * stride], low, high);
}

// Elements [begin, begin + count) of a span.
void clip_part(const Span& span, int64_t begin, int64_t count, double low, double high) {
  dispatch(span.type, [&](auto type) {
    using T = typename decltype(type)::type;
    T* w = static_cast<T*>(span.data) + begin * span.stride;
    const T l = static_cast<T>(static_cast<compute_t<T>>(low)), h = static_cast<T>(static_cast<compute_t<T>>(high));
    if (span.stride == 1) {
      clip_run(w, count, l, h);
    } else {
      clip_strided_run(w, count, span.stride, l, h);
    }
  });
}

}  // namespace

void clip_spans(const std::vector<Span>& spans, int32_t, double low, double high) {
  parallel_items(spans, kGrain,
                 [=](const Span& span, int64_t begin, int64_t count) { clip_part(span, begin, count, low, high); });
}

}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) {
  m.impl("clip_", TORCH_BOX(&wgan::clip_<aoti_torch_device_type_cpu>));
}
