// How a penalty per sample becomes the result; the numbers are those of the schemas in ops/norm_penalty.py.
#pragma once

#include <cstdint>

namespace wgan {

enum class Reduction : int64_t { none = 0, mean = 1, sum = 2 };

}  // namespace wgan
