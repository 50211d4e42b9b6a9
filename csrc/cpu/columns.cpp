// A transposed convolution to a few channels: y = fold(W x), a matrix product and a sum of where its columns overlap.
// Both are done image by image, so that the columns never leave the cache.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "../common/checks.h"
#include "loops.h"
#include "products.h"

namespace wgan {
namespace {

// Of an axis: input pixel i's tap k lies at i·stride − padding + k·dilation of the output.
struct Fold {
  int64_t size, kernel, stride, padding, dilation;

  int64_t begin(int64_t i) const { return i * stride - padding; }
};

// W as panels of kPanel columns of taps, [taps/kPanel, in, kPanel], with zeros behind the last; taps are [out, rows,
// columns] of the kernel.
WGAN_CLONES void panels_of(const float* w, int64_t in, int64_t taps, float* panels) {
  for (int64_t k = 0; k < in; ++k) {
    for (int64_t n = 0; n < taps; ++n) panels[(n / kPanel * in + k) * kPanel + n % kPanel] = w[k * taps + n];
  }
}

// columns[pixels, panels·kPanel] = x[pixels, in]·W, of so many pixels at once that a core's first cache has them for
// all panels.
constexpr ByIsa multiply([](auto isa, const float* x, int64_t pixels, int64_t in, const float* panels, int64_t width,
                            float* columns) __attribute__((always_inline)) {
  constexpr int64_t kPixels = 24, kLine = 16;
  for (int64_t first = 0; first < pixels; first += kPixels) {
    const float* next = x + (first + kPixels) * in;  // a tenth of the time is waiting for these otherwise
    for (int64_t i = 0; i < std::min(kPixels, pixels - first - kPixels) * in; i += kLine) __builtin_prefetch(next + i);
    for (int64_t n = 0; n < width; n += kPanel) {
      rows_product<false>(isa, std::min(kPixels, pixels - first), in, x + first * in, in, 1, panels + n * in,
                          columns + first * width + n, width);
    }
  }
});

// Adds the columns of an image's pixels, [pixels, width], to its result [out, height, width].
WGAN_CLONES void add_columns(const float* columns, int64_t height, int64_t pixels, int64_t width, int64_t out,
                             const Fold& rows, const Fold& along, float* image) {
  const int64_t kernel = along.kernel, dilation = along.dilation;
  for (int64_t channel = 0; channel < out; ++channel) {
    for (int64_t row = 0; row < height; ++row) {
      for (int64_t i = 0; i < rows.kernel; ++i) {
        const int64_t y = rows.begin(row) + i * rows.dilation;
        if (y < 0 || y >= rows.size) continue;
        float* line = image + (channel * rows.size + y) * along.size;
        const float* taps = columns + row * pixels * width + (channel * rows.kernel + i) * kernel;
        for (int64_t pixel = 0; pixel < pixels; ++pixel, taps += width) {
          const int64_t begin = along.begin(pixel);
          const int64_t first = begin < 0 ? (-begin + dilation - 1) / dilation : 0;
          const int64_t last = std::min(kernel, (along.size - begin + dilation - 1) / dilation);
          for (int64_t j = first; j < last; ++j) line[begin + j * dilation] += taps[j];
        }
      }
    }
  }
}

// x: [B, h, w, in]; w: [in, out, rows, columns]; both contiguous → y: [B, out, height, width]
Tensor columns(const Tensor& x, const Tensor& w, int64_t height, int64_t width, int64_t stride_rows,
               int64_t stride_columns, int64_t padding_rows, int64_t padding_columns, int64_t dilation_rows,
               int64_t dilation_columns) {
  for (const Tensor& t : {x, w}) {
    STD_TORCH_CHECK(t.dim() == 4 && t.is_contiguous() && t.is_cpu() && t.scalar_type() == ScalarType::Float,
                    "columns: x and w must be contiguous, of four dimensions and float32 on the CPU");
  }
  const int64_t in = x.size(3), out = w.size(1), taps = out * w.size(2) * w.size(3), pixels = x.size(1) * x.size(2);
  STD_TORCH_CHECK(w.size(0) == in, "columns: w has other channels than x");
  STD_TORCH_CHECK(height >= 0 && width >= 0 && stride_rows > 0 && stride_columns > 0, "columns: no such geometry");
  const Fold rows{height, w.size(2), stride_rows, padding_rows, dilation_rows};
  const Fold along{width, w.size(3), stride_columns, padding_columns, dilation_columns};
  Tensor y = torch::stable::new_empty(x, {x.size(0), out, height, width});
  const int64_t wide = (taps + kPanel - 1) / kPanel * kPanel;
  Tensor panels = torch::stable::new_zeros(x, {wide * in});
  panels_of(data<float>(w), in, taps, mutable_data<float>(panels));
  const float *from = data<float>(x), *of_kernel = data<float>(panels);
  float* to = mutable_data<float>(y);
  const int64_t image = out * height * width;
  torch::stable::parallel_for(0, x.size(0), 1, [&](int64_t begin, int64_t end) {
    // Rows of a product come in multiples of kRowStep: the last image is copied, so as not to read beyond it.
    const int64_t rounded = (pixels + kRowStep - 1) / kRowStep * kRowStep;
    std::vector<float> scratch(rounded * wide), last(rounded == pixels ? 0 : rounded * in);
    for (int64_t b = begin; b < end; ++b) {
      std::fill_n(to + b * image, image, 0.f);
      const float* of_image = from + b * pixels * in;
      if (rounded != pixels && b + 1 == x.size(0)) {
        std::copy_n(of_image, pixels * in, last.data());
        of_image = last.data();
      }
      multiply(of_image, rounded, in, of_kernel, wide, scratch.data());
      add_columns(scratch.data(), x.size(1), x.size(2), wide, out, rows, along, to + b * image);
    }
  });
  return y;
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) { m.impl("columns", TORCH_BOX(&wgan::columns)); }
