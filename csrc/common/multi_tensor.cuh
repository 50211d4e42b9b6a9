// One launch over a whole list of tensors.
//
// The kernel finds its tensors in a table that is passed by value, as a kernel argument: nothing is allocated, copied
// or kept, a table cannot go stale, and a CUDA graph captures it with the launch. A table in device memory would need
// all of that for a few bytes per tensor.
//
// A new multi-tensor kernel is an Op and a call of multi_tensor(); clip.cu is the shortest example. An Op is
//
//   template <class T>
//   struct Step {
//     using type = T;                           // of the elements
//     static constexpr int arrays = 4;          // per tensor: parameter, gradient, two states
//     static constexpr unsigned reads = 0b1111, writes = 0b1101;  // masks by array: vectors.cuh
//     static constexpr bool has_step = true;    // whether Run::step is in the table
//     ...                                       // settings, by value or pointers to device memory
//     __device__ Context begin(const float* step) const;                  // once per thread; step: null without
//     __device__ void operator()(T (&x)[arrays], const Context&) const;   // one element of each array, in place
//   };
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "launch.cuh"
#include "vectors.cuh"

namespace wgan {

// A tensor, or a run of one: kArrays arrays of `count` elements, `stride` apart.
template <int kArrays>
struct Run {
  void* data[kArrays];
  int64_t count;
  int64_t stride = 1;
  const float* step = nullptr;
};

// What a kernel's arguments may come to. 32,764 bytes need a driver of CUDA 12.1, which every driver that runs code of
// CUDA 13 is.
#if defined(__CUDACC_VER_MAJOR__) && __CUDACC_VER_MAJOR__ < 13
constexpr size_t kArgumentBytes = 4096;
#else
constexpr size_t kArgumentBytes = 32764;
#endif
constexpr size_t kOpBytes = 256;
// A launch copies its whole table: most critics fit the small one.
constexpr size_t kLargeTable = kArgumentBytes - kOpBytes;
constexpr size_t kSmallTable = 4096 - kOpBytes;

// kPointers per tensor: its arrays, and its step where there is one.
template <int kPointers, size_t kBytes>
struct Table {
  static constexpr int kCapacity = (kBytes - 16) / (kPointers * sizeof(void*) + 2 * sizeof(int64_t) + sizeof(int32_t));

  int64_t chunk;  // elements per block, a multiple of 16 bytes
  int32_t tensors;
  int32_t blocks;
  int64_t count[kCapacity];
  int64_t stride[kCapacity];
  void* data[kPointers][kCapacity];
  int32_t first_block[kCapacity];  // ascending, from 0

  // The tensor of a block, by binary search: the last one that begins at or before it.
  WGAN_HD int find(int32_t block) const {
    int low = 0, high = tensors;  // first_block[low] ≤ block < first_block[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (first_block[middle] <= block) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

template <class Op, size_t kBytes>
using TableOf = Table<Op::arrays + (Op::has_step ? 1 : 0), kBytes>;

template <class Op, size_t kBytes>
__global__ void __launch_bounds__(kThreads)
    multi_tensor_kernel(const __grid_constant__ TableOf<Op, kBytes> table, const __grid_constant__ Op op) {
  using T = typename Op::type;
  const int tensor = table.find(static_cast<int32_t>(blockIdx.x));
  T* array[Op::arrays];
#pragma unroll
  for (int a = 0; a < Op::arrays; ++a) array[a] = static_cast<T*>(table.data[a][tensor]);
  const int64_t count = table.count[tensor];
  const int64_t lo = (static_cast<int32_t>(blockIdx.x) - table.first_block[tensor]) * table.chunk;
  const int64_t hi = lo + table.chunk < count ? lo + table.chunk : count;
  const float* step = nullptr;
  if constexpr (Op::has_step) step = static_cast<const float*>(table.data[Op::arrays][tensor]);
  const auto context = op.begin(step);
  stream<Op>(array, table.stride[tensor], lo, hi, threadIdx.x, kThreads, [&](int64_t, auto& x, int, int) {
    constexpr int kWidth = sizeof(x[0].at) / sizeof(T);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      T element[Op::arrays];
#pragma unroll
      for (int a = 0; a < Op::arrays; ++a) element[a] = x[a].at[k];
      op(element, context);
#pragma unroll
      for (int a = 0; a < Op::arrays; ++a) x[a].at[k] = element[a];
    }
  });
}

namespace detail {

// Fills tables from run(i), i in [0, items), and launches each when it is full.
template <size_t kBytes, class Op, class RunOf>
void launch_tables(const Device& device, const Op& op, size_t items, int64_t chunk, const RunOf& run) {
  static_assert(sizeof(TableOf<Op, kBytes>) <= kBytes && sizeof(Op) <= kOpBytes);
  TableOf<Op, kBytes> table;
  const auto clear = [&] { table.chunk = chunk, table.tensors = table.blocks = 0; };
  const auto flush = [&] {
    launch(device, multi_tensor_kernel<Op, kBytes>, table.blocks, kThreads, table, op);
    clear();
  };
  clear();
  for (size_t i = 0; i < items; ++i) {
    const Run<Op::arrays> one = run(i);
    if (one.count == 0) continue;
    const int t = table.tensors++;
    for (int a = 0; a < Op::arrays; ++a) table.data[a][t] = one.data[a];
    if constexpr (Op::has_step) table.data[Op::arrays][t] = const_cast<float*>(one.step);
    table.count[t] = one.count;
    table.stride[t] = one.stride;
    table.first_block[t] = table.blocks;
    table.blocks += static_cast<int32_t>((one.count + chunk - 1) / chunk);
    if (table.tensors == table.kCapacity) flush();
  }
  flush();
}

}  // namespace detail

// Takes every element of the tensors run(i) → Run<Op::arrays>, i in [0, items), through op; one of count 0 is left out.
// One launch as long as they fit one table.
template <class Op, class RunOf>
void multi_tensor(const Device& device, const Op& op, size_t items, const RunOf& run) {
  int64_t total = 0, tensors = 0;
  for (size_t i = 0; i < items; ++i) {
    const int64_t count = run(i).count;
    total += count;
    tensors += count != 0;
  }
  const int64_t chunk = device.elements_per_block(total, kThreads * kVector<typename Op::type>);
  if (tensors <= TableOf<Op, kSmallTable>::kCapacity) {
    detail::launch_tables<kSmallTable>(device, op, items, chunk, run);
  } else {
    detail::launch_tables<kLargeTable>(device, op, items, chunk, run);
  }
}

}  // namespace wgan
