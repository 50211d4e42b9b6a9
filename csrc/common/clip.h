// The operator clip_, on whatever device: its list of tensors becomes a list of spans.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include "tensor_list.h"

namespace wgan {

using torch::stable::Tensor;

// Clamps every element of every span into [low, high], on the device where they all lie.
void clip_spans(const std::vector<Span>& spans, int32_t device_index, double low, double high);

// The memory of tensors that all lie on the device of the first.
class SpanList {
 public:
  explicit SpanList(size_t tensors) { spans_.reserve(tensors); }

  Added add(const View& view) { return device_index_.is_that_of(view) ? add_view(view, spans_) : Added::device; }

  void clip(double low, double high) const { clip_spans(spans_, device_index_.value, low, high); }

 private:
  DeviceIndex device_index_;
  std::vector<Span> spans_;
};

// params: tensors of any shapes, strides and dtypes, clamped in place
template <int32_t (*kDevice)()>
void clip_(const std::vector<Tensor> params, double low, double high) {
  SpanList list(params.size());
  for (size_t i = 0; i < params.size(); ++i) {
    View view;
    Added added = read_tensor(params[i].get(), kDevice(), view);
    if (added == Added::yes) added = list.add(view);
    STD_TORCH_CHECK(added == Added::yes, "clip_: params[", i, "] ", explain(added));
  }
  list.clip(low, high);
}

}  // namespace wgan
