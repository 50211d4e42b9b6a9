#include "winograd.h"

#include <torch/csrc/stable/library.h>

#include <optional>

namespace wgan {
namespace {

// A kernel of 4×4 or 3×3 taps as seen from the image that is read, in any memory. From the small one it is turned
// around.
struct Kernel {
  const float* data;
  int64_t in, out, in_stride, out_stride, row, column;
  int taps;
  bool turned;

  Kernel(const Tensor& w, bool turned)
      : data(wgan::data<float>(w)),
        in(w.size(!turned)),
        out(w.size(turned)),
        in_stride(w.stride(!turned)),
        out_stride(w.stride(turned)),
        row(w.stride(2)),
        column(w.stride(3)),
        taps(static_cast<int>(w.size(2))),
        turned(turned) {}

  // Where tap (i, j) of a phase lies; −1 where there is none.
  int64_t tap(int phase, int i, int j) const {
    const int y = phase / 2 + 2 * (turned ? 1 - i : i), x = phase % 2 + 2 * (turned ? 1 - j : j);
    return y < taps && x < taps ? y * row + x * column : -1;
  }
};

// G g Gᵀ of the inputs [begin, end): for each phase points of [out/kPanel, in, kPanel].
constexpr ByIsa kernel_points([](auto isa, const Kernel& w, float* to, int64_t begin,
                                 int64_t end) __attribute__((always_inline)) {
  using Vector = typename decltype(isa)::Vector;
  for (int64_t n = 0; n < w.out; n += isa.kLanes) {
    for (int64_t k = begin; k < end; ++k) {  // of what is read for 16 outputs the cache has the next inputs too
      for (int phase = 0; phase < kPhases; ++phase) {
        const Points points(to + phase * Points::size(w.in * w.out), w.in * w.out);
        Vector g[2][2] = {}, half[math::kPoints][2], row[math::kPoints];
        WGAN_UNROLL for (int i = 0; i < 2; ++i) {
          WGAN_UNROLL for (int j = 0; j < 2; ++j) {
            const int64_t tap = w.tap(phase, i, j);
            if (tap >= 0) read_strided(isa, w.data + k * w.in_stride + n * w.out_stride + tap, w.out_stride, g[i][j]);
          }
        }
        WGAN_UNROLL for (int j = 0; j < 2; ++j) math::winograd_taps(g[0][j], g[1][j], &half[0][j], 2);
        WGAN_UNROLL for (int i = 0; i < math::kPoints; ++i) {
          math::winograd_taps(half[i][0], half[i][1], row, 1);
          WGAN_UNROLL for (int j = 0; j < math::kPoints; ++j) {
            isa.at(points.at(i * math::kPoints + j) + (n / kPanel * w.in + k) * kPanel + n % kPanel) = row[j];
          }
        }
      }
    }
  }
});

// The points of all phases of a kernel.
struct KernelPoints : Operands {
  int taps;
  bool turned;
  Tensor points;

  KernelPoints(const Kernel& w, const Tensor& like)
      : Operands{w.in, w.out},
        taps(w.taps),
        turned(w.turned),
        points(torch::stable::new_empty(like, {kPhases * Points::size(in * out)})) {
    float* to = mutable_data<float>(points);
    torch::stable::parallel_for(0, in, 8, [&](int64_t begin, int64_t end) { kernel_points(w, to, begin, end); });
  }
  Points of(int phase) const { return {mutable_data<float>(points) + phase * Points::size(in * out), in * out}; }
  Zeros zeros(int phase) const { return {taps, phase, turned}; }
};

// to (+)= from·kernel, point by point, of a block's tiles. from: [tiles, in], to: [tiles, out]
template <bool kAdd>
constexpr ByIsa multiply([](auto isa, const Block& block, const Points& from, const Points& kernel, const Zeros& zeros,
                            const Points& to, int64_t in, int64_t out) __attribute__((always_inline)) {
  const int64_t rows = (block.count + kRowStep - 1) / kRowStep * kRowStep;
  for (int point = 0; point < kProducts; ++point) {
    if (!block.has(point)) continue;
    if (zeros.has(point)) {
      if (!kAdd) std::fill_n(to.at(point), rows * out, 0.f);
      continue;
    }
    for (int64_t n = 0; n < out; n += kPanel) {
      rows_product<kAdd>(isa, rows, in, from.at(point), in, 1, kernel.at(point) + n * in, to.at(point) + n, out);
    }
  }
});

constexpr ByIsa large_points([](auto isa, const Block& block, const Padded& large, Padding p, int phase,
                                const Points& points) __attribute__((always_inline)) {
  of_shape(block, [&]<int M, int N>() __attribute__((always_inline)) {
    block.each_tile([&](int64_t i, int64_t image, int64_t row, int64_t column) __attribute__((always_inline)) {
      const Pixels at{2 * row - p.rows + phase / 2, 2 * column - p.columns + phase % 2, 2};
      to_points<M, N>(isa, large, image, at, points, i * large.images.channels);
    });
  });
});

constexpr ByIsa small_result([](auto isa, const Block& block, const Points& points, const float* bias,
                                const Images<float>& small) __attribute__((always_inline)) {
  of_shape(block, [&]<int M, int N>() __attribute__((always_inline)) {
    block.each_tile([&](int64_t i, int64_t image, int64_t row, int64_t column) __attribute__((always_inline)) {
      from_points<M, N>(isa, points, i * small.channels, bias, small, image, {row, column, 1});
    });
  });
});

// The first row or column of the small image, plus one, that a phase's first pixel of the large one meets.
int64_t first_of(int q, int64_t padding) { return padding > q ? (padding - q + 1) / 2 : 0; }

constexpr ByIsa small_points([](auto isa, const Block& block, const Padded& small, Padding p,
                                const Points& points) __attribute__((always_inline)) {
  const int64_t top = first_of(block.phase / 2, p.rows), left = first_of(block.phase % 2, p.columns);
  of_shape(block, [&]<int M, int N>() __attribute__((always_inline)) {
    block.each_tile([&](int64_t i, int64_t image, int64_t row, int64_t column) __attribute__((always_inline)) {
      const Pixels at{top + row - 1, left + column - 1, 1};
      to_points<M, N>(isa, small, image, at, points, i * small.images.channels);
    });
  });
});

constexpr ByIsa large_result([](auto isa, const Block& block, const Points& points, const float* bias,
                                const Images<float>& large, Padding p) __attribute__((always_inline)) {
  const int rows = block.phase / 2, columns = block.phase % 2;
  const int64_t top = first_of(rows, p.rows), left = first_of(columns, p.columns);
  of_shape(block, [&]<int M, int N>() __attribute__((always_inline)) {
    block.each_tile([&](int64_t i, int64_t image, int64_t row, int64_t column) __attribute__((always_inline)) {
      const Pixels at{2 * (top + row) + rows - p.rows, 2 * (left + column) + columns - p.columns, 2};
      from_points<M, N>(isa, points, i * large.channels, bias, large, image, at);
    });
  });
});

int64_t result_size(int64_t large, int64_t padding, int64_t taps) {
  return large + 2 * padding < taps ? 0 : (large + 2 * padding - taps) / 2 + 1;
}

// large: [B, H, W, large channels] → small: [B, h, w, small channels], the convolution
Tensor winograd_down(const Tensor& large, const Tensor& w, std::optional<Tensor> bias, int64_t rows, int64_t columns) {
  const char* op = "winograd_down";
  check_images(op, "large", large, w, 1);
  check_channels(op, "bias", bias, w.size(0));
  const int64_t taps = w.size(2), h = result_size(large.size(1), rows, taps);
  const int64_t width = result_size(large.size(2), columns, taps);
  STD_TORCH_CHECK(rows >= 0 && columns >= 0 && h > 0 && width > 0, op, ": no pixel is left");
  Tensor small = torch::stable::new_empty(large, {large.size(0), h, width, w.size(0)});
  const KernelPoints kernel(Kernel(w, false), large);
  const Padded from(large);
  const Images<float> to(mutable_data<float>(small), small);
  const float* shift = data_or_null<float>(bias);
  std::vector<Block> blocks;
  add_blocks(blocks, 0, large.size(0), Axis(h), Axis(width), kernel.length());
  parallel_jobs(blocks.size(), kernel.scratch(), [&](int64_t b, float* scratch) {
    const Points read = kernel.read(scratch), written = kernel.written(scratch);
    for (int phase = 0; phase < kPhases; ++phase) {
      large_points(blocks[b], from, Padding{rows, columns}, phase, read);
      const auto multiply_phase = [&](const auto& multiply) {
        multiply(blocks[b], read, kernel.of(phase), kernel.zeros(phase), written, kernel.in, kernel.out);
      };
      phase ? multiply_phase(multiply<true>) : multiply_phase(multiply<false>);
    }
    small_result(blocks[b], written, shift, to);
  });
  return small;
}

// small: [B, h, w, small channels] → large: [B, H, W, large channels], the transposed convolution of that size
Tensor winograd_up(const Tensor& small, const Tensor& w, std::optional<Tensor> bias, int64_t height, int64_t width,
                   int64_t rows, int64_t columns) {
  const char* op = "winograd_up";
  check_images(op, "small", small, w, 0);
  check_channels(op, "bias", bias, w.size(1));
  STD_TORCH_CHECK(rows >= 0 && columns >= 0 && height > 0 && width > 0, op, ": no pixel is left");
  Tensor large = torch::stable::new_empty(small, {small.size(0), height, width, w.size(1)});
  const KernelPoints kernel(Kernel(w, true), small);
  const Padded from(small);
  const Images<float> to(mutable_data<float>(large), large);
  const float* shift = data_or_null<float>(bias);
  std::vector<Block> blocks;
  for (int phase = 0; phase < kPhases; ++phase) {
    const auto pixels = [](int q, int64_t size, int64_t padding) {
      const int64_t first = 2 * first_of(q, padding) + q - padding;
      return std::max<int64_t>(0, size - first + 1) / 2;
    };
    const int64_t high = pixels(phase / 2, height, rows), wide = pixels(phase % 2, width, columns);
    if (high && wide) add_blocks(blocks, phase, small.size(0), Axis(high), Axis(wide), kernel.length());
  }
  parallel_jobs(blocks.size(), kernel.scratch(), [&](int64_t b, float* scratch) {
    const Block& block = blocks[b];
    const Points read = kernel.read(scratch), written = kernel.written(scratch);
    small_points(block, from, Padding{rows, columns}, read);
    multiply<false>(block, read, kernel.of(block.phase), kernel.zeros(block.phase), written, kernel.in, kernel.out);
    large_result(block, written, shift, to, Padding{rows, columns});
  });
  return large;
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) {
  m.impl("winograd_down", TORCH_BOX(&wgan::winograd_down));
  m.impl("winograd_up", TORCH_BOX(&wgan::winograd_up));
}
