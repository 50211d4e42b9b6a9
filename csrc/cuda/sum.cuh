// Deterministic sums in two passes: chunks of rows by teams of lanes, in the compute type within a lane and in double
// from there on; then the chunks in order, by whoever asked. No atomics: every run gives the same.
#pragma once

#include "../common/block_reduce.cuh"
#include "../common/dispatch.h"
#include "../common/launch.cuh"
#include "../common/vectors.cuh"

namespace wgan {

struct Identity {
  static constexpr unsigned reads = 1, writes = 0;
  template <class C>
  __device__ static C of(C x) {
    return x;
  }
};
struct Square {
  static constexpr unsigned reads = 1, writes = 0;
  template <class C>
  __device__ static C of(C x) {
    return x * x;
  }
};

// Elements per partial sum: eight 16-byte accesses of each lane of a warp in float32. More only where a row would have
// more than kMostChunks of them, which one block has to add.
constexpr int64_t kChunk = 1024;
constexpr int64_t kMostChunks = 8192;
// Accesses whose elements a lane adds in the compute type, before it goes on in double.
constexpr int64_t kInComputeType = 32;

// This lane's share of Σ Term(x[lo … hi)).
template <class Term, class T>
__device__ __forceinline__ double lane_sum(const T* x, int64_t lo, int64_t hi, int lane, int lanes) {
  using C = compute_t<T>;
  T* const array[1] = {const_cast<T*>(x)};
  const int64_t piece = kInComputeType * lanes * kVector<T>;
  double sum = 0;
  for (int64_t begin = lo; begin < hi; begin += piece) {
    C part[kVector<T>] = {};
    const int64_t end = begin + piece < hi ? begin + piece : hi;
    stream<Term>(array, 1, begin, end, lane, lanes, [&](int64_t, auto& pack, int, int) {
      constexpr int kWidth = sizeof(pack[0].at) / sizeof(T);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) part[k] += Term::of(static_cast<C>(pack[0].at[k]));
    });
#pragma unroll
    for (int k = 0; k < kVector<T>; ++k) sum += part[k];
  }
  return sum;
}

// How rows are cut: `chunks` of `chunk` elements each, summed by `team` lanes.
struct Cut {
  int64_t rows, width, chunk, chunks;
  int team;

  Cut(int64_t rows_, int64_t width_, int vector) : rows(rows_), width(width_) {
    chunk = kChunk * std::max<int64_t>(1, (width + kChunk * kMostChunks - 1) / (kChunk * kMostChunks));
    chunks = (width + chunk - 1) / chunk;
    for (team = 1; team < 32 && team * vector < width; team *= 2) {
    }
  }
  int64_t blocks() const { return (rows * chunks * team + kThreads - 1) / kThreads; }
};

// partial[row, c] = Σ Term(x[row, j]) over the j of chunk c. x: [rows, width]; partial: [rows, chunks]
template <class Term, class T>
__global__ void __launch_bounds__(kThreads) sum_kernel(const T* x, double* partial, const Cut cut) {
  const int64_t item = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / cut.team;
  const int lane = threadIdx.x % cut.team;
  double sum = 0;
  if (item < cut.rows * cut.chunks) {
    const int64_t row = item / cut.chunks, begin = item % cut.chunks * cut.chunk;
    const int64_t end = begin + cut.chunk < cut.width ? begin + cut.chunk : cut.width;
    sum = lane_sum<Term>(x, row * cut.width + begin, row * cut.width + end, lane, cut.team);
  }
  sum = team_sum(sum, cut.team);
  if (lane == 0 && item < cut.rows * cut.chunks) partial[item] = sum;
}

}  // namespace wgan
