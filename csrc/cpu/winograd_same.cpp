// A convolution with a 3×3 kernel and stride 1, and its gradients, by minimal filtering: tiles of 2×2 outputs.
#include <torch/csrc/stable/library.h>

#include <optional>

#include "winograd.h"

namespace wgan {
namespace {

using math::kPoints;

// Tiles [first, first + count) of a batch of images of such a size, two by two pixels.
struct Tiles {
  int64_t high, wide, first, count;

  Tiles(int64_t height, int64_t width, int64_t first, int64_t count)
      : high((height + 1) / 2), wide((width + 1) / 2), first(first), count(count) {}

  // f(index among these, image, row, column): where each begins.
  template <class F>
  [[gnu::always_inline]] void each(const F& f) const {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t tile = first + i, within = tile % (high * wide);
      f(i, tile / (high * wide), within / wide * 2, within % wide * 2);
    }
  }
};

// Strides of a kernel in any memory, [to, from, 3, 3], as its reader sees it: turned around and with channels exchanged
// for the input gradient.
struct Kernel {
  const float* data;
  int64_t in, out, in_stride, out_stride, row, column;

  Kernel(const Tensor& w, bool turned)
      : data(wgan::data<float>(w)),
        in(w.size(!turned)),
        out(w.size(turned)),
        in_stride(w.stride(!turned)),
        out_stride(w.stride(turned)),
        row(w.stride(2)),
        column(w.stride(3)) {
    if (turned) {
      data += 2 * (row + column);
      row = -row;
      column = -column;
    }
  }
};

// G g Gᵀ of the inputs [begin, end): points of [out/kPanel, in, kPanel].
constexpr ByIsa kernel_points([](auto isa, const Kernel& w, const Points& points, int64_t begin,
                                 int64_t end) __attribute__((always_inline)) {
  using Vector = typename decltype(isa)::Vector;
  for (int64_t n = 0; n < w.out; n += isa.kLanes) {
    for (int64_t k = begin; k < end; ++k) {
      Vector g[3][3] = {}, half[kPoints][3], row[kPoints];
      WGAN_UNROLL for (int i = 0; i < 3; ++i) {
        WGAN_UNROLL for (int j = 0; j < 3; ++j) {
          const float* from = w.data + k * w.in_stride + n * w.out_stride + i * w.row + j * w.column;
          read_strided(isa, from, w.out_stride, g[i][j]);
        }
      }
      WGAN_UNROLL for (int j = 0; j < 3; ++j) math::winograd_three_taps(&g[0][j], 3, &half[0][j], 3);
      WGAN_UNROLL for (int i = 0; i < kPoints; ++i) {
        math::winograd_three_taps(half[i], 1, row, 1);
        WGAN_UNROLL for (int j = 0; j < kPoints; ++j) {
          isa.at(points.at(i * kPoints + j) + (n / kPanel * w.in + k) * kPanel + n % kPanel) = row[j];
        }
      }
    }
  }
});

constexpr ByIsa read_points([](auto isa, const Tiles& tiles, const Padded& from, Padding p,
                               const Points& points) __attribute__((always_inline)) {
  tiles.each([&](int64_t i, int64_t image, int64_t row, int64_t column) __attribute__((always_inline)) {
    to_points<3, 3>(isa, from, image, {row - p.rows, column - p.columns, 1}, points, i * from.images.channels);
  });
});

// to = from·kernel, point by point. from: [tiles, in], to: [tiles, out]
constexpr ByIsa multiply([](auto isa, int64_t count, const Points& from, const Points& kernel, const Points& to,
                            int64_t in, int64_t out) __attribute__((always_inline)) {
  const int64_t rows = (count + kRowStep - 1) / kRowStep * kRowStep;
  for (int point = 0; point < kProducts; ++point) {
    for (int64_t n = 0; n < out; n += kPanel) {
      rows_product<false>(isa, rows, in, from.at(point), in, 1, kernel.at(point) + n * in, to.at(point) + n, out);
    }
  }
});

// Aᵀ p A, and a bias where there is one.
constexpr ByIsa write_result([](auto isa, const Tiles& tiles, const Points& points, const float* bias,
                                const Images<float>& to) __attribute__((always_inline)) {
  using Vector = typename decltype(isa)::Vector;
  tiles.each([&](int64_t t, int64_t image, int64_t y, int64_t x) __attribute__((always_inline)) {
    float* pixel[2][2];
    WGAN_UNROLL for (int i = 0; i < 2; ++i) {
      WGAN_UNROLL for (int j = 0; j < 2; ++j) pixel[i][j] = to.pixel(image, y + i, x + j);
    }
    for (int64_t c = 0; c < to.channels; c += isa.kLanes) {
      Vector p[kPoints][kPoints], half[2][kPoints], row[2];
      WGAN_UNROLL for (int i = 0; i < kPoints; ++i) {
        WGAN_UNROLL for (int j = 0; j < kPoints; ++j) {
          p[i][j] = isa.at(points.at(i * kPoints + j) + t * to.channels + c);
        }
      }
      WGAN_UNROLL for (int j = 0; j < kPoints; ++j) math::winograd_two_outputs(&p[0][j], kPoints, &half[0][j], kPoints);
      const Vector shift = bias ? isa.at(bias + c) : Vector{};
      WGAN_UNROLL for (int i = 0; i < 2; ++i) {
        math::winograd_two_outputs(half[i], 1, row, 1);
        WGAN_UNROLL for (int j = 0; j < 2; ++j) {
          if (pixel[i][j]) isa.at(pixel[i][j] + c) = row[j] + shift;
        }
      }
    }
  });
});

void check_kernel(const char* op, const Tensor& w) {
  STD_TORCH_CHECK(w.dim() == 4 && w.size(2) == 3 && w.scalar_type() == ScalarType::Float, op,
                  ": w must be [out, in, 3, 3] of float32");
}

// x: [B, h, w, in] → [B, H, W, out], the convolution with w: [out, in, 3, 3]; turned: from [B, h, w, out], with the
// kernel turned around, which is the input gradient where `rows` and `columns` are 2 − its padding
Tensor winograd_same(const Tensor& x, const Tensor& w, std::optional<Tensor> bias, bool turned, int64_t rows,
                     int64_t columns) {
  const char* op = "winograd_same";
  check_images(op, "x", x, w, !turned);
  check_kernel(op, w);
  check_channels(op, "bias", bias, w.size(turned));
  const int64_t height = x.size(1) + 2 * rows - 2, width = x.size(2) + 2 * columns - 2;
  STD_TORCH_CHECK(rows >= 0 && columns >= 0 && height > 0 && width > 0, op, ": no pixel is left");
  const Kernel kernel(w, turned);
  const int64_t in = kernel.in, out = kernel.out;
  Tensor y = torch::stable::new_empty(x, {x.size(0), height, width, out});
  Tensor of_kernel = torch::stable::new_empty(x, {Points::size(in * out)});
  const Points taps(mutable_data<float>(of_kernel), in * out);
  torch::stable::parallel_for(0, in, 8, [&](int64_t begin, int64_t end) { kernel_points(kernel, taps, begin, end); });
  const Padded from(x);
  const Images<float> to(mutable_data<float>(y), y);
  const float* shift = data_or_null<float>(bias);
  const Operands operands{in, out};
  const int64_t length = operands.length(), tiles = x.size(0) * ((height + 1) / 2) * ((width + 1) / 2);
  parallel_jobs((tiles + length - 1) / length, operands.scratch(), [&](int64_t job, float* scratch) {
    const Points read = operands.read(scratch), written = operands.written(scratch);
    const Tiles some(height, width, job * length, std::min(length, tiles - job * length));
    read_points(some, from, Padding{rows, columns}, read);
    multiply(some.count, read, taps, written, in, out);
    write_result(some, written, shift, to);
  });
  return y;
}

constexpr int64_t kLength = 48;  // tiles of a block of the weight gradient

// Of tiles the points of the channels [first, first + width) that are read, as panels [point, width/kPanel, kLength,
// kPanel], and of the output gradient, [point, kLength, channels].
constexpr ByIsa gradient_points([](auto isa, const Tiles& tiles, const Padded& x, const Padded& delta, Padding p,
                                   int64_t first, int64_t width, float* of_x,
                                   float* of_delta) __attribute__((always_inline)) {
  using Vector = typename decltype(isa)::Vector;
  tiles.each([&](int64_t t, int64_t image, int64_t y, int64_t column) __attribute__((always_inline)) {
    const float *in[kPoints][kPoints], *out[2][2];
    WGAN_UNROLL for (int i = 0; i < kPoints; ++i) {
      WGAN_UNROLL for (int j = 0; j < kPoints; ++j) {
        in[i][j] = x.pixel(image, y + i - p.rows, column + j - p.columns);
        if (i < 2 && j < 2) out[i][j] = delta.pixel(image, y + i, column + j);
      }
    }
    for (int64_t c = 0; c < width; c += isa.kLanes) {
      Vector d[kPoints][kPoints], half[kPoints][kPoints], row[kPoints];
      WGAN_UNROLL for (int i = 0; i < kPoints; ++i) {
        WGAN_UNROLL for (int j = 0; j < kPoints; ++j) d[i][j] = isa.at(in[i][j] + first + c);
      }
      WGAN_UNROLL for (int j = 0; j < kPoints; ++j) { math::winograd_data<3>(&d[0][j], kPoints, &half[0][j], kPoints); }
      WGAN_UNROLL for (int i = 0; i < kPoints; ++i) {
        math::winograd_data<3>(half[i], 1, row, 1);
        WGAN_UNROLL for (int j = 0; j < kPoints; ++j) {
          isa.at(of_x + (((i * kPoints + j) * width + c / kPanel * kPanel) * kLength) + t * kPanel + c % kPanel) =
              row[j];
        }
      }
    }
    const int64_t channels = delta.images.channels;
    for (int64_t c = 0; c < channels; c += isa.kLanes) {
      Vector d[2][2], half[kPoints][2], row[kPoints];
      WGAN_UNROLL for (int i = 0; i < 2; ++i) {
        WGAN_UNROLL for (int j = 0; j < 2; ++j) d[i][j] = isa.at(out[i][j] + c);
      }
      WGAN_UNROLL for (int j = 0; j < 2; ++j) math::winograd_two_deltas(&d[0][j], 2, &half[0][j], 2);
      WGAN_UNROLL for (int i = 0; i < kPoints; ++i) {
        math::winograd_two_deltas(half[i], 1, row, 1);
        WGAN_UNROLL for (int j = 0; j < kPoints; ++j) {
          isa.at(of_delta + ((i * kPoints + j) * kLength + t) * channels + c) = row[j];
        }
      }
    }
  });
});

// sums [out, width] += Σ over tiles, point by point
constexpr ByIsa add_products([](auto isa, int64_t count, const float* of_x, const float* of_delta, const Points& sums,
                                int64_t width, int64_t out) __attribute__((always_inline)) {
  for (int point = 0; point < kProducts; ++point) {
    for (int64_t n = 0; n < width; n += kPanel) {
      rows_product<true>(isa, out, count, of_delta + point * kLength * out, 1, out,
                         of_x + (point * width + n) * kLength, sums.at(point) + n, width);
    }
  }
});

// Gᵀ p G: points [out, width] → w [out, in, 3, 3] in any memory, from input channel `first` on.
constexpr ByIsa taps_of_points([](auto isa, const Points& points, int64_t width, int64_t first,
                                  Tensor& w) __attribute__((always_inline)) {
  using Vector = typename decltype(isa)::Vector;
  float* data = mutable_data<float>(w);
  const int64_t in_stride = w.stride(1), row = w.stride(2), column = w.stride(3);
  for (int64_t k = 0; k < w.size(0); ++k) {
    for (int64_t n = 0; n < width; n += isa.kLanes) {
      Vector p[kPoints][kPoints], half[3][kPoints], g[3];
      WGAN_UNROLL for (int i = 0; i < kPoints; ++i) {
        WGAN_UNROLL for (int j = 0; j < kPoints; ++j) { p[i][j] = isa.at(points.at(i * kPoints + j) + k * width + n); }
      }
      WGAN_UNROLL for (int j = 0; j < kPoints; ++j) {
        math::winograd_three_tap_gradients(&p[0][j], kPoints, &half[0][j], kPoints);
      }
      WGAN_UNROLL for (int i = 0; i < 3; ++i) {
        math::winograd_three_tap_gradients(half[i], 1, g, 1);
        WGAN_UNROLL for (int j = 0; j < 3; ++j) {
          float* to = data + k * w.stride(0) + (first + n) * in_stride + i * row + j * column;
          write_strided(isa, g[j], in_stride, to);
        }
      }
    }
  }
});

// x: [B, h, w, in]; delta: [B, H, W, out] → like w: the weight gradient of the convolution
Tensor winograd_same_weights(const Tensor& x, const Tensor& delta, const Tensor& w, int64_t rows, int64_t columns) {
  const char* op = "winograd_same_weights";
  check_images(op, "x", x, w, 1);
  check_images(op, "delta", delta, w, 0);
  check_kernel(op, w);
  STD_TORCH_CHECK(x.size(0) == delta.size(0) && rows >= 0 && columns >= 0, op, ": batches differ");
  Tensor result = torch::stable::empty_like(w);
  const Padded from(x), of(delta);
  const int64_t in = w.size(1), out = w.size(0), width = in % 64 == 0 && in > 64 && out <= 128 ? 64 : kPanel;
  const int64_t tiles = x.size(0) * ((delta.size(1) + 1) / 2) * ((delta.size(2) + 1) / 2);
  const int64_t of_x = kProducts * kLength * width, of_delta = kProducts * kLength * out;
  parallel_jobs(in / width, of_x + of_delta + Points::size(out * width), [&](int64_t job, float* own) {
    float *read = own, *given = own + of_x;
    const Points sums(own + of_x + of_delta, out * width);
    std::fill_n(sums.data, Points::size(out * width), 0.f);
    for (int64_t first = 0; first < tiles; first += kLength) {
      const Tiles some(delta.size(1), delta.size(2), first, std::min(kLength, tiles - first));
      gradient_points(some, from, of, Padding{rows, columns}, job * width, width, read, given);
      add_products(some.count, read, given, sums, width, out);
    }
    taps_of_points(sums, width, job * width, result);
  });
  return result;
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) {
  m.impl("winograd_same", TORCH_BOX(&wgan::winograd_same));
  m.impl("winograd_same_weights", TORCH_BOX(&wgan::winograd_same_weights));
}
