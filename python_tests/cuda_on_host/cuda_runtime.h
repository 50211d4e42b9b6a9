// CUDA on the host, as far as csrc/cuda uses it: the kernels' own source, compiled by a C++ compiler, runs where there
// is no GPU. Every CUDA thread is a fiber. Fibers take turns in a random order and switch at barriers and shuffles
// alone, so a missing barrier shows; a barrier that some threads never reach, or a shuffle, aborts.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static  // one block runs at a time

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline void __stwb(uint4* p, uint4 value) { *p = value; }

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrMaxThreadsPerMultiProcessor };

// A small device: several blocks per tensor, and draws larger than what it holds at once, come up in small tests.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr name, int) {
  *value = name == cudaDevAttrMultiProcessorCount ? 2 : 16;
  return cudaSuccess;
}

namespace on_host {

struct Barrier {
  int arrived = 0, passed = 0;
};

struct Fiber {
  static constexpr size_t kStack = 1 << 18;
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  bool done = false;
  char slot[8];
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Barrier> warps;
  Barrier all;
  int alive = 0, events = 0;
  size_t current = 0;
  ucontext_t scheduler;
  std::function<void()> kernel;
};
inline Block block;

inline void yield() { swapcontext(&block.fibers[block.current].context, &block.scheduler); }

inline void wait(Barrier& barrier, int count) {
  const int ticket = barrier.passed;
  if (++barrier.arrived == count) {
    barrier.arrived = 0;
    ++barrier.passed;
    ++block.events;
  }
  while (barrier.passed == ticket) yield();
}

inline void enter() {
  block.kernel();
  block.fibers[block.current].done = true;
  --block.alive;
  ++block.events;
}

// Lets every fiber of a warp go on to its next barrier or shuffle.
inline void run_warp(int warp, int threads, std::minstd_rand& random) {
  std::vector<size_t> lanes;
  for (int t = warp * 32; t < std::min(threads, warp * 32 + 32); ++t) {
    if (!block.fibers[t].done) lanes.push_back(t);
  }
  std::shuffle(lanes.begin(), lanes.end(), random);
  for (const size_t t : lanes) {
    block.current = t;
    threadIdx.x = static_cast<unsigned>(t);
    swapcontext(&block.scheduler, &block.fibers[t].context);
  }
}

inline void run_block(int threads) {
  static std::minstd_rand random(1);
  if (static_cast<int>(block.fibers.size()) < threads) block.fibers.resize(threads);
  block.warps.assign((threads + 31) / 32, {});
  block.all = {};
  block.alive = threads;
  for (int t = 0; t < threads; ++t) {
    Fiber& fiber = block.fibers[t];
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = Fiber::kStack;
    fiber.context.uc_link = &block.scheduler;
    makecontext(&fiber.context, enter, 0);
  }
  std::vector<int> order(block.warps.size());
  std::iota(order.begin(), order.end(), 0);
  while (block.alive > 0) {
    const int before = block.events;
    std::shuffle(order.begin(), order.end(), random);
    for (const int warp : order) {
      int events;
      do {
        events = block.events;
        run_warp(warp, threads, random);
      } while (events != block.events);
    }
    if (before == block.events) {
      std::fputs("a barrier or shuffle that some threads never reach\n", stderr);
      std::abort();
    }
  }
}

template <class... P, size_t... I>
void call(void (*kernel)(P...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_const_t<P>*>(arguments[I])...);
}

}  // namespace on_host

template <class... P>
cudaError_t cudaLaunchKernel(void (*kernel)(P...), dim3 grid, dim3 threads, void** arguments, size_t, cudaStream_t) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  if (grid.x == 0 || threads.x == 0 || threads.x > 1024) std::abort();
  gridDim = grid;
  blockDim = threads;
  on_host::block.kernel = [=] { on_host::call(kernel, arguments, std::index_sequence_for<P...>()); };
  for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) on_host::run_block(static_cast<int>(threads.x));
  return cudaSuccess;
}

// Threads that have ended do not count.
inline void __syncthreads() { on_host::wait(on_host::block.all, on_host::block.alive); }

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  static_assert(sizeof(T) <= sizeof(on_host::Fiber::slot));
  if (mask != 0xffffffffu) std::abort();
  const size_t thread = on_host::block.current;
  std::memcpy(on_host::block.fibers[thread].slot, &value, sizeof(T));
  on_host::wait(on_host::block.warps[thread / 32], 32);
  std::memcpy(&value, on_host::block.fibers[thread ^ lanes].slot, sizeof(T));
  on_host::wait(on_host::block.warps[thread / 32], 32);
  return value;
}
