// The one loop of the CUDA kernels: through memory, 16 bytes of each array at a time where their addresses allow it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "../math/host_device.h"

namespace wgan {

// kWidth elements: one, or as many as are 16 bytes.
template <class T, int kWidth>
struct Pack {
  static_assert(kWidth == 1 || sizeof(T) * kWidth == sizeof(uint4));
  T at[kWidth];
};

template <class T>
constexpr int kVector = 16 / sizeof(T);

// How many elements the arrays begin after a 16-byte boundary; −1 where that differs between them, and no access of 16
// bytes would be aligned in all.
template <class T, int kArrays>
WGAN_HD int common_lead(T* const (&array)[kArrays]) {
  const auto lead_of = [](const T* p) { return static_cast<int>(reinterpret_cast<uintptr_t>(p) % 16 / sizeof(T)); };
  const int lead = lead_of(array[0]);
  for (int a = 1; a < kArrays; ++a) {
    if (lead_of(array[a]) != lead) return -1;
  }
  return lead;
}

// The elements [first, last) of kWidth, `stride` apart; the others are 0.
template <int kWidth, class T>
__device__ __forceinline__ Pack<T, kWidth> load(const T* p, int64_t stride, int first, int last) {
  Pack<T, kWidth> x = {};
  if (last - first == kWidth) {
    if constexpr (kWidth == 1) {
      x.at[0] = *p;
    } else {
      const uint4 bits = *reinterpret_cast<const uint4*>(p);
      memcpy(&x, &bits, sizeof(bits));
    }
    return x;
  }
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    if (k >= first && k < last) x.at[k] = p[k * stride];
  }
  return x;
}

// By an intrinsic: nvcc may break up the store of a uint4 whose words it has computed one by one.
template <int kWidth, class T>
__device__ __forceinline__ void store(T* p, int64_t stride, const Pack<T, kWidth>& x, int first, int last) {
  if (last - first == kWidth) {
    if constexpr (kWidth == 1) {
      *p = x.at[0];
    } else {
      uint4 bits;
      memcpy(&bits, &x, sizeof(bits));
      __stwb(reinterpret_cast<uint4*>(p), bits);
    }
    return;
  }
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    if (k >= first && k < last) p[k * stride] = x.at[k];
  }
}

namespace detail {

// kSlots slots of kWidth elements, `sweep` elements apart, the first at i. All loads are issued before the first use.
template <class Op, int kWidth, int kSlots, bool kWhole, class T, int kArrays, class F>
__device__ __forceinline__ void turn(T* const (&array)[kArrays], int64_t stride, int64_t i, int64_t sweep, int64_t lo,
                                     int64_t hi, const F& f) {
  const auto first = [&](int64_t at) { return kWhole || at >= lo ? 0 : static_cast<int>(lo - at); };
  const auto last = [&](int64_t at) { return kWhole || at + kWidth <= hi ? kWidth : static_cast<int>(hi - at); };
  if (!kWhole && (i >= hi || i + kWidth <= lo)) return;
  Pack<T, kWidth> x[kSlots][kArrays] = {};
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    const int64_t at = i + s * sweep;
#pragma unroll
    for (int a = 0; a < kArrays; ++a) {
      if (Op::reads >> a & 1) x[s][a] = load<kWidth>(array[a] + at * stride, stride, first(at), last(at));
    }
  }
#pragma unroll
  for (int s = 0; s < kSlots; ++s) f(i + s * sweep, x[s], first(i + s * sweep), last(i + s * sweep));
#pragma unroll
  for (int s = 0; s < kSlots; ++s) {
    const int64_t at = i + s * sweep;
#pragma unroll
    for (int a = 0; a < kArrays; ++a) {
      if (Op::writes >> a & 1) store<kWidth>(array[a] + at * stride, stride, x[s][a], first(at), last(at));
    }
  }
}

template <class Op, int kWidth, class T, int kArrays, class F>
__device__ __forceinline__ void stream(T* const (&array)[kArrays], int64_t stride, int lead, int64_t lo, int64_t hi,
                                       int lane, int lanes, const F& f) {
  constexpr int kSlots = kArrays < 4 ? 4 / kArrays : 1;
  static_assert(kSlots >= 1);
  const int64_t sweep = int64_t{lanes} * kWidth;
  // From the boundary at or before lo on; `i` is the same for all lanes.
  for (int64_t i = (lo + lead) / kWidth * kWidth - lead; i < hi;) {
    if (i >= lo && i + kSlots * sweep <= hi) {
      turn<Op, kWidth, kSlots, true>(array, stride, i + lane * kWidth, sweep, lo, hi, f);
      i += kSlots * sweep;
    } else {
      turn<Op, kWidth, 1, false>(array, stride, i + lane * kWidth, sweep, lo, hi, f);
      i += sweep;
    }
  }
}

}  // namespace detail

// Takes the elements [lo, hi) of kArrays arrays through f, shared among `lanes` threads of which this is number `lane`.
//
// Op says what happens to array a, by bit a of two masks: Op::reads and Op::writes. f(i, x, first, last) gets the
// elements from i on of every array, x[a].at[k], and leaves there what is to be written. Only k in [first, last)
// counts: outside, at the ends of the range, nothing was read and nothing is written.
//
// Elements lie `stride` apart. A stride other than 1, or arrays that differ in alignment, go element by element.
template <class Op, class T, int kArrays, class F>
__device__ __forceinline__ void stream(T* const (&array)[kArrays], int64_t stride, int64_t lo, int64_t hi, int lane,
                                       int lanes, const F& f) {
  const int lead = common_lead(array);
  if (stride == 1 && lead >= 0) {
    detail::stream<Op, kVector<T>>(array, 1, lead, lo, hi, lane, lanes, f);
  } else {
    detail::stream<Op, 1>(array, stride, 0, lo, hi, lane, lanes, f);
  }
}

}  // namespace wgan
