// The loop of the kernels that treat [rows, width] memory element by element, with one number per row.
#pragma once

#include "../common/launch.cuh"
#include "../common/vectors.cuh"

namespace wgan {

// Which row the elements of a run belong to: one 64-bit division where the run begins, and after it a 32-bit one at
// most, for an element that is at least a whole row from there.
struct Rows {
  int64_t row, left, width;  // of the first element: its row, and how many of the row come from it on

  struct Place {
    int64_t row, left;
  };

  WGAN_HD Rows(int64_t begin, int64_t width_) : row(begin / width_), left(width_ - begin % width_), width(width_) {}

  // offset: from the first element, < 2³¹.
  WGAN_HD Place at(int64_t offset) const {
    if (offset < left) return {row, left - offset};
    const int64_t over = offset - left;
    if (over < width) return {row + 1, width - over};
    const uint32_t o = static_cast<uint32_t>(over), w = static_cast<uint32_t>(width);
    return {row + 1 + o / w, width - o % w};
  }
};

// Op, beside what stream() asks of it:
//   type, arrays; Op::array[arrays]: each [rows, width]
//   C row(row, first) const       the row's number; first: the caller has the row's first element, in one thread only
//   operator()(T (&x)[arrays], C) const     one element of each array
template <class Op>
__global__ void __launch_bounds__(kThreads)
    rows_kernel(const __grid_constant__ Op op, int64_t count, int64_t width, int64_t run) {
  using T = typename Op::type;
  const int64_t lo = blockIdx.x * run, hi = lo + run < count ? lo + run : count;
  const Rows rows(lo, width);
  int64_t known = -1;
  decltype(op.row(0, false)) number{};
  stream<Op>(op.array, 1, lo, hi, threadIdx.x, kThreads, [&](int64_t i, auto& x, int first, int last) {
    constexpr int kWidth = sizeof(x[0].at) / sizeof(T);
    Rows::Place place = rows.at(i + first - lo);
    const auto enter = [&] {
      if (place.row != known) number = op.row(known = place.row, place.left == width);
    };
    const auto element = [&](int k) {
      T one[Op::arrays];
#pragma unroll
      for (int a = 0; a < Op::arrays; ++a) one[a] = x[a].at[k];
      op(one, number);
#pragma unroll
      for (int a = 0; a < Op::arrays; ++a) x[a].at[k] = one[a];
    };
    enter();
    if (place.left >= last - first) {  // one row, which it is but at its ends
#pragma unroll
      for (int k = 0; k < kWidth; ++k) element(k);
      return;
    }
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      if (k < first || k >= last) continue;
      if (place.left == 0) {
        place = {place.row + 1, width};
        enter();
      }
      element(k);
      --place.left;
    }
  });
}

// Takes every element of [rows, width] memory through op; rows·width > 0.
template <class Op>
void each_in_rows(const Device& device, const Op& op, int64_t rows, int64_t width) {
  const int64_t count = rows * width;
  const int64_t run = device.elements_per_block(count, kThreads * kVector<typename Op::type>);
  launch(device, rows_kernel<Op>, (count + run - 1) / run, kThreads, op, count, width, run);
}

}  // namespace wgan
