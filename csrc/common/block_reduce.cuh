// Sums over threads, always in the same order, in double.
#pragma once

#include <cuda_runtime.h>

namespace wgan {

// Σ over teams of neighbouring lanes; every lane gets its team's sum. team: a power of two, at most 32. All lanes of
// the warp have to come by.
__device__ __forceinline__ double team_sum(double value, int team) {
  for (int offset = team / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// Σ over a block of kBlock threads, for thread 0; the others get something else. All threads have to come by.
template <int kBlock>
__device__ __forceinline__ double block_sum(double value) {
  static_assert(kBlock % 32 == 0 && kBlock <= 1024);
  constexpr int kWarps = kBlock / 32;
  __shared__ double of_warp[kWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  value = team_sum(value, 32);
  if (lane == 0) of_warp[warp] = value;
  __syncthreads();
  value = threadIdx.x < kWarps ? of_warp[threadIdx.x] : 0;
  __syncthreads();  // of_warp is free for the next sum
  return warp == 0 ? team_sum(value, 32) : 0;
}

}  // namespace wgan
