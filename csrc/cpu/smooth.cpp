// Smooth activations y = φ(x) and their derivatives, each in one pass over memory: math/smooth.h has the formulas.
#include "../math/smooth.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <tuple>

#include "../common/checks.h"
#include "loops.h"

namespace wgan {
namespace {

constexpr int64_t kSmoothGrain = kGrain / 4;  // an element takes as long as four that are copied

// Of an activation its value at x, and its derivatives from what is kept of it: x, or y where that is enough.
template <class Phi>
struct OfArgument {
  static float value(float x) { return Phi::of(x).y; }
  static math::Bent at(float x) { return Phi::of(x); }
};

struct OfTanh {
  static float value(float x) { return math::Tanh::of(x).y; }
  static math::Bent at(float y) {
    const float slope = 1.f - y * y;
    return {y, slope, -2.f * y * slope};
  }
};

struct OfLogistic {
  static float value(float x) { return math::Logistic::of(x).y; }
  static math::Bent at(float y) {
    const float slope = y * (1.f - y);
    return {y, slope, (1.f - 2.f * y) * slope};
  }
};

template <class F>
void by_curve(const char* op, int64_t curve, const F& f) {
  switch (static_cast<math::Curve>(curve)) {
    case math::Curve::kTanh:
      return f(OfTanh());
    case math::Curve::kSigmoid:
      return f(OfLogistic());
    case math::Curve::kSoftplus:
      return f(OfArgument<math::Softplus>());
    case math::Curve::kSilu:
      return f(OfArgument<math::Silu>());
    case math::Curve::kGelu:
      return f(OfArgument<math::Gelu>());
    case math::Curve::kElu:
      return f(OfArgument<math::Elu>());
    default:
      STD_TORCH_CHECK(false, op, ": no such curve");
  }
}

template <class K>
WGAN_CLONES void fwd(const float* x, float* __restrict y, int64_t count) {
  each(count, [=](int64_t i) { y[i] = K::value(x[i]); });
}

template <class K>
WGAN_CLONES void bwd(const float* delta, const float* kept, float* __restrict out, int64_t count) {
  each(count, [=](int64_t i) { out[i] = K::at(kept[i]).slope * delta[i]; });
}

template <class K>
WGAN_CLONES void bwd_onto(const float* delta, const float* kept, const float* before, float* __restrict out,
                          int64_t count) {
  each(count, [=](int64_t i) { out[i] = before[i] + K::at(kept[i]).slope * delta[i]; });
}

template <class K>
WGAN_CLONES void bwd_bwd(const float* t, const float* delta, const float* kept, float* __restrict pushed,
                         float* __restrict bent, int64_t count) {
  each(count, [=](int64_t i) {
    const math::Bent of = K::at(kept[i]);
    pushed[i] = of.slope * t[i];
    bent[i] = of.bend * delta[i] * t[i];
  });
}

void check(const char* op, const Tensor& kept) {
  STD_TORCH_CHECK(is_rows(kept) && kept.is_cpu() && kept.scalar_type() == ScalarType::Float, op,
                  ": what is kept must be [B, …], contiguous or channels-last, of float32, on the CPU");
}

// x → φ(x)
Tensor smooth_fwd(const Tensor& x, int64_t curve) {
  check("smooth_fwd", x);
  Tensor y = torch::stable::empty_like(x);
  const float* in = data<float>(x);
  float* out = mutable_data<float>(y);
  by_curve("smooth_fwd", curve, [&](auto kind) {
    torch::stable::parallel_for(0, x.numel(), kSmoothGrain, [=](int64_t begin, int64_t end) {
      fwd<decltype(kind)>(in + begin, out + begin, end - begin);
    });
  });
  return y;
}

// δ, what is kept, and what the result is added to, or nothing → φ′·δ
Tensor smooth_bwd(const Tensor& delta, const Tensor& kept, std::optional<Tensor> before, int64_t curve) {
  check("smooth_bwd", kept);
  check_like("smooth_bwd", "delta", delta, kept);
  if (before) check_like("smooth_bwd", "before", *before, kept);
  Tensor result = torch::stable::empty_like(kept);
  const float *d = data<float>(delta), *in = data<float>(kept), *onto = data_or_null<float>(before);
  float* out = mutable_data<float>(result);
  by_curve("smooth_bwd", curve, [&](auto kind) {
    using K = decltype(kind);
    torch::stable::parallel_for(0, kept.numel(), kSmoothGrain, [=](int64_t begin, int64_t end) {
      if (onto)
        bwd_onto<K>(d + begin, in + begin, onto + begin, out + begin, end - begin);
      else
        bwd<K>(d + begin, in + begin, out + begin, end - begin);
    });
  });
  return result;
}

// t, δ, what is kept → φ′·t, φ″·δ·t
std::tuple<Tensor, Tensor> smooth_bwd_bwd(const Tensor& t, const Tensor& delta, const Tensor& kept, int64_t curve) {
  check("smooth_bwd_bwd", kept);
  check_like("smooth_bwd_bwd", "t", t, kept);
  check_like("smooth_bwd_bwd", "delta", delta, kept);
  Tensor pushed = torch::stable::empty_like(kept), bent = torch::stable::empty_like(kept);
  const float *a = data<float>(t), *d = data<float>(delta), *in = data<float>(kept);
  float *of_t = mutable_data<float>(pushed), *of_x = mutable_data<float>(bent);
  by_curve("smooth_bwd_bwd", curve, [&](auto kind) {
    torch::stable::parallel_for(0, kept.numel(), kSmoothGrain, [=](int64_t begin, int64_t end) {
      bwd_bwd<decltype(kind)>(a + begin, d + begin, in + begin, of_t + begin, of_x + begin, end - begin);
    });
  });
  return {pushed, bent};
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) {
  m.impl("smooth_fwd", TORCH_BOX(&wgan::smooth_fwd));
  m.impl("smooth_bwd", TORCH_BOX(&wgan::smooth_bwd));
  m.impl("smooth_bwd_bwd", TORCH_BOX(&wgan::smooth_bwd_bwd));
}
