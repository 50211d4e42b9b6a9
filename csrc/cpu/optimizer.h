// What the optimizers' loops share.
#pragma once

#include "../common/optimizer.h"
#include "loops.h"

namespace wgan {

// Elements from which on a second thread pays: a step costs several times what a clip does.
constexpr int64_t kStepGrain = kGrain / 4;

}  // namespace wgan
