#pragma once

#include <vector>

#include "../common/tensor_list.h"

namespace wgan {

// Clamps every element of every span into [low, high]; all spans lie on the device of that index.
void clip_spans(const std::vector<Span>& spans, int32_t device, double low, double high);

}  // namespace wgan
