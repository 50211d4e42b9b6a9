// What the kernels of layer_norm share: a row to a warp or to a block, its means, and the pass that writes.
#pragma once

#include "../common/layer_norm.h"
#include "sum.cuh"

namespace wgan {

constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;
constexpr int64_t kLongRow = 1024;  // elements from which on a row is a whole block's and not a warp's

template <unsigned kReads, unsigned kWrites>
struct Access {
  static constexpr unsigned reads = kReads, writes = kWrites;
};

// The row of this thread's team, a warp or a block, which starts at `start`, and whose weights start at `weights`.
struct Team {
  int lanes, lane;
  int64_t row, start, weights;

  __device__ Team(const Norm& norm, int lanes_)
      : lanes(lanes_),
        lane(static_cast<int>(threadIdx.x) % lanes_),
        row((int64_t{blockIdx.x} * kThreads + threadIdx.x) / lanes_),
        start(row * norm.width),
        weights(row % norm.sets * norm.width) {}
};

// sum[s] over the team, for each of its threads, and divided by width. All threads of the team have to come by.
template <int kSums>
__device__ void average(double (&sum)[kSums], const Team& team, int64_t width) {
  __shared__ double of_warp[kSums][kWarps];
#pragma unroll
  for (int s = 0; s < kSums; ++s) sum[s] = team_sum(sum[s], kWarp);
  if (team.lanes > kWarp) {
#pragma unroll
    for (int s = 0; s < kSums; ++s) {
      if (threadIdx.x % kWarp == 0) of_warp[s][threadIdx.x / kWarp] = sum[s];
    }
    __syncthreads();
#pragma unroll
    for (int s = 0; s < kSums; ++s) {
      sum[s] = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) sum[s] += of_warp[s][w];
    }
    __syncthreads();  // of_warp is free for the next sums
  }
#pragma unroll
  for (int s = 0; s < kSums; ++s) sum[s] /= static_cast<double>(width);
}

// mean[s] = mean over the row of what f(element of each array, term) adds to term[s].
template <unsigned kReads, int kSums, class T, int kArrays, class F>
__device__ void row_means(T* const (&array)[kArrays], const Team& team, int64_t width, double (&mean)[kSums],
                          const F& f) {
  using C = compute_t<T>;
  const int64_t piece = kInComputeType * team.lanes * kVector<T>;
  for (double& m : mean) m = 0;
  for (int64_t begin = 0; begin < width; begin += piece) {
    C term[kSums] = {};
    const int64_t end = begin + piece < width ? begin + piece : width;
    stream<Access<kReads, 0>>(array, 1, begin, end, team.lane, team.lanes, [&](int64_t, auto& x, int first, int last) {
      constexpr int kWidth = sizeof(x[0].at) / sizeof(T);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        if (k < first || k >= last) continue;
        C element[kArrays];
#pragma unroll
        for (int a = 0; a < kArrays; ++a) element[a] = static_cast<C>(x[a].at[k]);
        f(element, term);
      }
    });
#pragma unroll
    for (int s = 0; s < kSums; ++s) mean[s] += term[s];
  }
  average(mean, team, width);
}

// Takes each element of every array through f, in the compute type, and writes what f leaves there.
template <unsigned kReads, unsigned kWrites, class T, int kArrays, class F>
__device__ void each_of_row(T* const (&array)[kArrays], const Team& team, int64_t width, const F& f) {
  using C = compute_t<T>;
  stream<Access<kReads, kWrites>>(array, 1, 0, width, team.lane, team.lanes, [&](int64_t, auto& x, int, int) {
    constexpr int kWidth = sizeof(x[0].at) / sizeof(T);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      C element[kArrays];
#pragma unroll
      for (int a = 0; a < kArrays; ++a) element[a] = static_cast<C>(x[a].at[k]);
      f(element);
#pragma unroll
      for (int a = 0; a < kArrays; ++a) {
        if (kWrites >> a & 1) x[a].at[k] = static_cast<T>(element[a]);
      }
    }
  });
}

// Where a row's weights are; where there are none, `instead`: it is read with the others, and nothing is made of it.
template <class T>
__device__ T* weights_of(const T* w, const Team& team, T* instead) {
  return w ? const_cast<T*>(w) + team.weights : instead;
}

// Where the row begins. Arrays are typed alike, whether they are read or written; the masks say which.
template <class T>
__device__ T* row_of(const T* p, const Team& team) {
  return const_cast<T*>(p) + team.start;
}

}  // namespace wgan
