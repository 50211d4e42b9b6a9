// The input gradient of a convolution in bfloat16 from two to four channels, which is a transposed convolution to them:
// of each pixel of the small image what it gives to all that it meets, a matrix product, and then the sums of that,
// image by image, so that it never leaves the cache.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <optional>

#include "pairs.h"

namespace wgan {
namespace {

constexpr int kRows = 8;  // pixels at once, in up to three vectors each
constexpr int kVectors = 3;
constexpr int64_t kWork = 1 << 16;  // pairs multiplied from which on a second thread pays

// What a pixel gives, [rows, columns, channels] of the kernel, in whole vectors.
struct Given {
  int64_t count, width;

  explicit Given(const Tensor& w)
      : count(w.size(1) * w.size(2) * w.size(3)), width((count + kLanes - 1) / kLanes * kLanes) {}
};

// A kernel [small, large, rows, columns] in any memory as [small/2, width].
std::vector<uint32_t> pairs_of(const Tensor& w, const Given& given) {
  const BFloat16* data = wgan::data<BFloat16>(w);
  std::vector<uint32_t> pairs(w.size(0) / 2 * given.width);
  for (int64_t k = 0; k < w.size(0); k += 2) {
    for (int64_t n = 0; n < given.count; ++n) {
      const int64_t c = n % w.size(1), tap = n / w.size(1), i = tap / w.size(3), j = tap % w.size(3);
      const BFloat16* low = data + k * w.stride(0) + c * w.stride(1) + i * w.stride(2) + j * w.stride(3);
      pairs[k / 2 * given.width + n] = low->x | static_cast<uint32_t>(low[w.stride(0)].x) << 16;
    }
  }
  return pairs;
}

// to[kRows, kCount vectors] = pixels·kernel; both of `width` in a row
template <int kCount>
[[gnu::always_inline]] inline void multiply_some(const uint32_t* const* pixels, int64_t pairs, const uint32_t* kernel,
                                                 int64_t width, float* to) {
  Vector sum[kRows][kCount] = {};
  for (int64_t k = 0; k < pairs; ++k) {
    Pairs factors[kCount];
    WGAN_UNROLL for (int v = 0; v < kCount; ++v) factors[v] = pairs_at(kernel + k * width + v * kLanes);
    WGAN_UNROLL for (int r = 0; r < kRows; ++r) {
      const Pairs factor = Pairs{} + pixels[r][k];
      WGAN_UNROLL for (int v = 0; v < kCount; ++v) add_products(sum[r][v], factor, factors[v]);
    }
  }
  WGAN_UNROLL for (int r = 0; r < kRows; ++r) {
    WGAN_UNROLL for (int v = 0; v < kCount; ++v) Avx512::at(to + r * width + v * kLanes) = sum[r][v];
  }
}

// given[pixels, width] = image[pixels, small]·kernel, of pixels in multiples of kRows: the last one is repeated.
WGAN_PAIRS void multiply(const BFloat16* image, int64_t pixels, int64_t small, const uint32_t* kernel, int64_t width,
                         float* given) {
  for (int64_t first = 0; first < pixels; first += kRows) {
    const uint32_t* from[kRows];
    for (int64_t r = 0; r < kRows; ++r) {
      from[r] = reinterpret_cast<const uint32_t*>(image + std::min(first + r, pixels - 1) * small);
    }
    int64_t n = 0;
    for (; n + kVectors * kLanes <= width; n += kVectors * kLanes) {
      multiply_some<kVectors>(from, small / 2, kernel + n, width, given + first * width + n);
    }
    if (width - n == 2 * kLanes) {
      multiply_some<2>(from, small / 2, kernel + n, width, given + first * width + n);
    } else if (width - n == kLanes) {
      multiply_some<1>(from, small / 2, kernel + n, width, given + first * width + n);
    }
  }
}

// For each pixel of the large image along a dimension where what it is given lies: by which pixel and tap.
std::vector<std::vector<int64_t>> givers(const Dimension& dimension, int64_t of_pixel, int64_t of_tap) {
  std::vector<std::vector<int64_t>> all(dimension.large);
  for (int64_t tap = 0; tap < dimension.taps; ++tap) {
    for (int64_t pixel = dimension.begin(tap); pixel < dimension.end(tap); ++pixel) {
      all[dimension.at(pixel, tap)].push_back(pixel * of_pixel + tap * of_tap);
    }
  }
  return all;
}

using Givers = std::vector<std::vector<int64_t>>;

// A line of the large image, [columns, kChannels]: the sums of what its pixels are given. Of three channels a fourth is
// read and written, too, and then written over.
template <int kChannels>
WGAN_PAIRS void add_line(const float* given, const std::vector<int64_t>& row, const Givers& columns, const float* shift,
                         float* to) {
  constexpr int kWide = kChannels == 2 ? 2 : 4;
  using Pixel [[gnu::vector_size(kWide * sizeof(float)), gnu::aligned(sizeof(float)), gnu::may_alias]] = float;
  const Pixel first = *reinterpret_cast<const Pixel*>(shift);
  for (const std::vector<int64_t>& column : columns) {
    Pixel sum = first;
    for (int64_t y : row) {
      for (int64_t x : column) sum += *reinterpret_cast<const Pixel*>(given + y + x);
    }
    *reinterpret_cast<Pixel*>(to) = sum;
    to += kChannels;
  }
}

WGAN_PAIRS void write_line(const float* line, int64_t count, BFloat16* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Vector v = Avx512::at(line + i);
    write_rounded(v, to + i);
  }
  for (; i < count; ++i) to[i] = static_cast<BFloat16>(line[i]);
}

// small: [B, h, w, small channels] → large: [B, height, width, 2 to 4]
Tensor pairs_few_up(const Tensor& small, const Tensor& w, std::optional<Tensor> bias, int64_t height, int64_t width,
                    const std::vector<int64_t> geometry) {
  const char* op = "pairs_few_up";
  check_pairs(op, "small", small, w, 0, true);
  check_channels(op, "bias", bias, w.size(1), ScalarType::BFloat16);
  STD_TORCH_CHECK(height > 0 && width > 0, op, ": no pixel is left");
  const Dimension rows = dimension_of(op, 0, w, height, small.size(1), geometry);
  const Dimension columns = dimension_of(op, 1, w, width, small.size(2), geometry);
  const int64_t few = w.size(1), many = w.size(0), pixels = rows.small * columns.small;
  Tensor large = torch::stable::new_empty(small, {small.size(0), height, width, few});
  const Given given(w);
  const std::vector<uint32_t> kernel = pairs_of(w, given);
  const Givers of_rows = givers(rows, columns.small * given.width, columns.taps * few);
  const Givers of_columns = givers(columns, given.width, few);
  std::vector<float> shift(4);
  if (bias) std::copy_n(data<BFloat16>(*bias), few, shift.begin());
  const BFloat16* from = data<BFloat16>(small);
  BFloat16* to = mutable_data<BFloat16>(large);
  const auto add = few == 2 ? add_line<2> : few == 3 ? add_line<3> : add_line<4>;
  const int64_t work = std::max<int64_t>(1, pixels * many / 2 * given.width);
  torch::stable::parallel_for(0, small.size(0), std::max<int64_t>(1, kWork / work), [&](int64_t begin, int64_t end) {
    std::vector<float> scratch((pixels + kRows) * given.width), line(width * few + 1);
    for (int64_t b = begin; b < end; ++b) {
      multiply(from + b * pixels * many, pixels, many, kernel.data(), given.width, scratch.data());
      for (int64_t y = 0; y < height; ++y) {
        add(scratch.data(), of_rows[y], of_columns, shift.data(), line.data());
        write_line(line.data(), width * few, to + (b * height + y) * width * few);
      }
    }
  });
  return large;
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) { m.impl("pairs_few_up", TORCH_BOX(&wgan::pairs_few_up)); }
