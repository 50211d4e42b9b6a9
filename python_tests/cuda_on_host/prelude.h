// Comes before every source: the kernels register themselves for CUDA, which from here on means the CPU.
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#define CUDA CPU
