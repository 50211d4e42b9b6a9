// What a launch needs beside its arguments: the device, its current stream, and how many blocks it takes to fill it.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <climits>
#include <cstdint>
#include <type_traits>

#include "error_code.h"

namespace wgan {

constexpr int kThreads = 256;  // of a block that streams through memory

// Makes a device the current one for as long as this lives, and knows its stream and its number of multiprocessors.
class Device {
 public:
  explicit Device(int32_t index) : guard_(index), index_(index) {
    void* stream;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index, &stream));
    stream_ = static_cast<cudaStream_t>(stream);
    processors_ = attribute(cudaDevAttrMultiProcessorCount);
  }

  cudaStream_t stream() const { return stream_; }

  int attribute(cudaDeviceAttr name) const {
    int value;
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&value, name, index_));
    return value;
  }

  // How many elements a block takes of `total`, a multiple of `sweep` (what its threads take at once). As few as keep
  // every multiprocessor full of threads: a small critic spreads over the whole device. At most 16 sweeps: beyond,
  // more blocks balance better than longer ones.
  int64_t elements_per_block(int64_t total, int64_t sweep) const {
    const int64_t blocks = int64_t{processors_} * (2048 / kThreads);
    const int64_t sweeps = (total + blocks * sweep - 1) / (blocks * sweep);
    // Loads are issued up to four sweeps at a time.
    const int64_t rounded = sweeps <= 4 ? sweeps : (sweeps + 3) / 4 * 4;
    return sweep * std::clamp<int64_t>(rounded, 1, 16);
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  int32_t index_;
  cudaStream_t stream_;
  int processors_;
};

// kernel<<<blocks, threads>>>(arguments…) on the device's current stream, checked; no blocks: nothing. Arguments go by
// reference as far as the driver: <<<>>> would copy a table of 32 KB once more.
template <class... P>
void launch(const Device& device, void (*kernel)(P...), int64_t blocks, int threads,
            const std::type_identity_t<P>&... arguments) {
  if (blocks == 0) return;
  STD_TORCH_CHECK(blocks <= INT_MAX, "wgan_kernels: a launch of ", blocks, " blocks is more than CUDA takes");
  void* pointers[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
  STD_CUDA_CHECK(
      cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(blocks)), dim3(threads), pointers, 0, device.stream()));
}

}  // namespace wgan
