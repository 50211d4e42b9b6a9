#pragma once

#include <vector>

#include "../common/tensor_list.h"

namespace wgan {

// Clamps every element of every span into [low, high].
void clip_spans(const std::vector<Span>& spans, double low, double high);

}  // namespace wgan
