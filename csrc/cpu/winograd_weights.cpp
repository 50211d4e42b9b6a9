#include <torch/csrc/stable/library.h>

#include "winograd.h"

namespace wgan {
namespace {

using math::kPoints;

// A part of the sums, with its phase: channels [first, first + channels) of the large images, whose pixel of row 2·o +
// top meets row o of the small ones.
struct Slice {
  int64_t top, left, first, channels;
};

// Row I of the points of a tile with M×N outputs, where row I of a matrix's result is f(column, all of its rows).
template <int I, int N, int kColumns, class Isa, class F, class G>
[[gnu::always_inline]] inline void row_of_points(Isa isa, const F& f, const G& across, float* points, int64_t apart) {
  typename Isa::Vector half[kPoints], column[kPoints], row[kPoints];
  WGAN_UNROLL for (int64_t j = 0; j < kColumns; ++j) {
    f(j, column);
    half[j] = column[I];
  }
  across(half, row);
  WGAN_UNROLL for (int j = 0; j < kPoints; ++j) {
    if (N == 3 || j != math::kMinus) isa.at(points + j * apart) = row[j];
  }
}

// Of both images, row I of the points of a block's tiles: of a phase and a slice of the large one's channels as panels
// [point, channels/kPanel, length, kPanel], of the small one's as [point, length, channels].
template <int I>
constexpr ByIsa points_of_row([](auto isa, const Block& block, const Padded& large, const Padded& small,
                                 const Slice& slice, float* of_large, float* of_small,
                                 int64_t length) __attribute__((always_inline)) {
  using Vector = typename decltype(isa)::Vector;
  of_shape(block, [&]<int M, int N>() __attribute__((always_inline)) {
    if constexpr (M == 2 && I == math::kMinus) return;
    block.each_tile([&](int64_t t, int64_t image, int64_t y, int64_t x) __attribute__((always_inline)) {
      const float *in[M + 1][N + 1], *out[M][N];
      WGAN_UNROLL for (int i = 0; i <= M; ++i) {
        WGAN_UNROLL for (int j = 0; j <= N; ++j) {
          in[i][j] = large.pixel(image, 2 * (y + i) + slice.top, 2 * (x + j) + slice.left);
          if (i < M && j < N) out[i][j] = small.pixel(image, y + i, x + j);
        }
      }
      for (int64_t c = 0; c < slice.channels; c += isa.kLanes) {
        const auto down = [&](int64_t j, Vector(&p)[kPoints]) __attribute__((always_inline)) {
          Vector d[M + 1];
          WGAN_UNROLL for (int i = 0; i <= M; ++i) d[i] = isa.at(in[i][j] + slice.first + c);
          math::winograd_data<M>(d, 1, p, 1);
        };
        const auto across = [](const Vector* d, Vector* p)
                                __attribute__((always_inline)) { math::winograd_data<N>(d, 1, p, 1); };
        float* at = of_large + (c / kPanel * length + t) * kPanel + c % kPanel;
        row_of_points<I, N, N + 1>(isa, down, across, at, length * slice.channels);
      }
      const int64_t channels = small.images.channels;
      for (int64_t c = 0; c < channels; c += isa.kLanes) {
        const auto down = [&](int64_t j, Vector(&p)[kPoints]) __attribute__((always_inline)) {
          Vector d[M];
          WGAN_UNROLL for (int i = 0; i < M; ++i) d[i] = isa.at(out[i][j] + c);
          math::winograd_deltas<M>(d, 1, p, 1);
        };
        const auto across = [](const Vector* d, Vector* p)
                                __attribute__((always_inline)) { math::winograd_deltas<N>(d, 1, p, 1); };
        row_of_points<I, N, N>(isa, down, across, of_small + t * channels + c, length * channels);
      }
    });
  });
});

// sums [small channels, channels of the slice] += Σ over a block's tiles
constexpr ByIsa add_products([](auto isa, const Block& block, int row, const Zeros& zeros, const float* of_large,
                                const float* of_small, const Points& sums, int64_t length, int64_t large,
                                int64_t small) __attribute__((always_inline)) {
  for (int j = 0; j < kPoints; ++j) {
    if (!block.has(row * kPoints + j) || zeros.has(row * kPoints + j)) continue;
    for (int64_t n = 0; n < large; n += kPanel) {
      rows_product<true>(isa, small, block.count, of_small + j * length * small, 1, small,
                         of_large + (j * large + n) * length, sums.at(row * kPoints + j) + n, large);
    }
  }
});

// Gᵀ p G: points [phase, slice, point, small, width] → w [small, large, taps, taps] in any memory, of small channels
// [begin, end).
struct Taps {
  float* data;
  int64_t small, large, row, column;  // strides
  int taps;
};

constexpr ByIsa taps_of_points([](auto isa, float* points, int64_t small, int64_t large, int64_t width, const Taps& w,
                                  int64_t begin, int64_t end) __attribute__((always_inline)) {
  using Vector = typename decltype(isa)::Vector;
  for (int64_t k = begin; k < end; ++k) {
    for (int64_t n = 0; n < large; n += isa.kLanes) {
      for (int phase = 0; phase < kPhases; ++phase) {
        const Points of_slice(points + (phase * (large / width) + n / width) * Points::size(small * width),
                              small * width);
        Vector p[kPoints][kPoints], half[2][kPoints], g[2];
        WGAN_UNROLL for (int i = 0; i < kPoints; ++i) {
          WGAN_UNROLL for (int j = 0; j < kPoints; ++j) {
            p[i][j] = isa.at(of_slice.at(i * kPoints + j) + k * width + n % width);
          }
        }
        WGAN_UNROLL for (int j = 0; j < kPoints; ++j) {
          math::winograd_tap_gradients(&p[0][j], kPoints, &half[0][j], kPoints);
        }
        WGAN_UNROLL for (int i = 0; i < 2; ++i) {
          math::winograd_tap_gradients(half[i], 1, g, 1);
          WGAN_UNROLL for (int j = 0; j < 2; ++j) {
            const int y = phase / 2 + 2 * i, x = phase % 2 + 2 * j;
            if (y >= w.taps || x >= w.taps) continue;
            float* to = w.data + k * w.small + n * w.large + y * w.row + x * w.column;
            write_strided(isa, g[j], w.large, to);
          }
        }
      }
    }
  }
});

// f.operator()<row>()
template <class F>
void of_row(int row, const F& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) {
    (void)((row == I && (f.template operator()<I>(), true)) || ...);
  }(std::make_integer_sequence<int, kPoints>{});
}

constexpr int64_t kLength = 48;  // tiles whose points of one row lie in a core's second cache, with the slice's sums

// large: [B, H, W, large channels]; small: [B, h, w, small channels] → like w: Σ over pixels, the weight gradient of
// the convolution for an output gradient `small`, and of the transposed one of `small` for `large`
Tensor winograd_weights(const Tensor& large, const Tensor& small, const Tensor& w, int64_t rows, int64_t columns) {
  const char* op = "winograd_weights";
  check_images(op, "large", large, w, 1);
  check_images(op, "small", small, w, 0);
  STD_TORCH_CHECK(large.size(0) == small.size(0) && rows >= 0 && columns >= 0, op, ": batches differ");
  Tensor result = torch::stable::empty_like(w);
  const Taps taps{mutable_data<float>(result), result.stride(0), result.stride(1), result.stride(2), result.stride(3),
                  static_cast<int>(w.size(2))};
  const Padded from(large), of(small);
  const int64_t in = from.images.channels, out = of.images.channels;
  const int64_t width = in % 64 == 0 && out <= 128 ? 64 : kPanel, slices = in / width;
  // for each phase and slice points of [small channels, width]
  Tensor sums = torch::stable::new_zeros(large, {kPhases * slices * Points::size(out * width)});
  float* parts = mutable_data<float>(sums);
  std::vector<Block> blocks;
  add_blocks(blocks, 0, small.size(0), Axis(of.images.rows), Axis(of.images.columns), kLength);
  const int64_t of_large = kPoints * kLength * width;
  parallel_jobs(kPhases * slices, of_large + kPoints * kLength * out, [&](int64_t job, float* scratch) {
    const int64_t phase = job / slices;
    const Slice slice{phase / 2 - rows, phase % 2 - columns, job % slices * width, width};
    const Points part(parts + job * Points::size(out * width), out * width);
    const Zeros zeros(taps.taps, static_cast<int>(phase), false);
    for (const Block& block : blocks) {
      for (int row = 0; row < kPoints; ++row) {
        if (!block.has(row * kPoints) || zeros.has(row * kPoints)) continue;
        of_row(row, [&]<int I>() { points_of_row<I>(block, from, of, slice, scratch, scratch + of_large, kLength); });
        add_products(block, row, zeros, scratch, scratch + of_large, part, kLength, width, out);
      }
    }
  });
  torch::stable::parallel_for(
      0, out, 8, [&](int64_t begin, int64_t end) { taps_of_points(parts, out, in, width, taps, begin, end); });
  return result;
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) { m.impl("winograd_weights", TORCH_BOX(&wgan::winograd_weights)); }
