// STABLE_TORCH_ERROR_CODE_CHECK(call): an exception where a call of torch's C shim fails.
#pragma once

#include <torch/csrc/stable/macros.h>
#include <torch/headeronly/util/shim_utils.h>

// What torch 2.11 has in its place, which 2.13 still has.
#ifndef STABLE_TORCH_ERROR_CODE_CHECK
#define STABLE_TORCH_ERROR_CODE_CHECK TORCH_ERROR_CODE_CHECK
#endif
