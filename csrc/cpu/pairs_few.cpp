// A convolution in bfloat16 from two to four channels, y = W·patch, and its weight gradient, Σ δ·patchᵀ. The patches
// that the pixels of the result see are read where they lie, in a copy of the image with zeros around it.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "pairs.h"

namespace wgan {
namespace {

constexpr int64_t kParts = 8;       // of the samples, each summed by one thread, so that their order depends on nothing
constexpr int64_t kWork = 1 << 16;  // pairs multiplied from which on a second thread pays

// An image with zeros around it, of so many words to a pixel.
struct Patches {
  Dimension rows, columns;
  int64_t words, width;
  std::vector<int64_t> taps;  // where the words of a patch lie, [rows, columns, words]

  Patches(const Dimension& rows, const Dimension& columns, int64_t words)
      : rows(rows), columns(columns), words(words), width((columns.large + 2 * columns.padding) * words) {
    for (int64_t i = 0; i < rows.taps; ++i) {
      for (int64_t j = 0; j < columns.taps * words; ++j) taps.push_back(i * width + j);
    }
  }
  int64_t count() const { return static_cast<int64_t>(taps.size()); }
  int64_t size() const { return (rows.large + 2 * rows.padding) * width; }
  int64_t line(int64_t y) const { return (y + rows.padding) * width + columns.padding * words; }
  int64_t step() const { return columns.stride * words; }  // from a pixel's patch to the next one's
  const uint32_t* first(const uint32_t* image, int64_t y) const { return image + y * rows.stride * width; }
};

// Into the middle of `to`, whose border is zeros already: of each pixel two channels to a word, a third alone.
void pad(const BFloat16* image, const Patches& patches, int64_t channels, uint32_t* to) {
  const int64_t width = patches.columns.large;
  for (int64_t y = 0; y < patches.rows.large; ++y, image += width * channels) {
    uint32_t* line = to + patches.line(y);
    if (channels == 3) {
      for (int64_t x = 0; x < width; ++x) {
        line[2 * x] = image[3 * x].x | static_cast<uint32_t>(image[3 * x + 1].x) << 16;
        line[2 * x + 1] = image[3 * x + 2].x;
      }
    } else {
      std::memcpy(line, image, width * channels * sizeof(BFloat16));
    }
  }
}

// Likewise, of each two images an element.
WGAN_PAIRS void pad_both(const BFloat16* low, const BFloat16* high, const Patches& patches, uint32_t* to) {
  const int64_t length = patches.columns.large * patches.words;
  for (int64_t y = 0; y < patches.rows.large; ++y, low += length) {
    uint32_t* line = to + patches.line(y);
    for (int64_t i = 0; i < length; ++i) line[i] = low[i].x;
    if (!high) continue;
    for (int64_t i = 0; i < length; ++i) line[i] |= static_cast<uint32_t>(high[i].x) << 16;
    high += length;
  }
}

// y: [rows, columns, out] of an image; kernel: [out/kPanel, taps, kPanel]; bias: [out] or null
WGAN_PAIRS void forward_image(const uint32_t* image, const Patches& patches, const uint32_t* kernel,
                              const BFloat16* bias, int64_t out, BFloat16* y) {
  const int64_t *taps = patches.taps.data(), count = patches.count(), step = patches.step();
  for (int64_t row = 0; row < patches.rows.small; ++row) {
    for (int64_t n = 0; n < out; n += kPanel) {
      Vector shift[2] = {};
      if (bias) {
        read(Avx512{}, bias + n, shift[0]);
        read(Avx512{}, bias + n + kLanes, shift[1]);
      }
      in_parts<Avx512::kMost>(patches.columns.small, [&](auto pixels, int64_t column) __attribute__((always_inline)) {
        constexpr int kPixels = pixels;
        const uint32_t *from = patches.first(image, row) + column * step, *factors = kernel + n * count;
        Vector sum[kPixels][2];
        WGAN_UNROLL for (int p = 0; p < kPixels; ++p) {
          sum[p][0] = shift[0];
          sum[p][1] = shift[1];
        }
        for (int64_t k = 0; k < count; ++k) {
          const uint32_t* tap = from + taps[k];
          const Pairs low = pairs_at(factors + k * kPanel), high = pairs_at(factors + k * kPanel + kLanes);
          WGAN_UNROLL for (int p = 0; p < kPixels; ++p) {
            const Pairs factor = Pairs{} + tap[p * step];
            add_products(sum[p][0], factor, low);
            add_products(sum[p][1], factor, high);
          }
        }
        BFloat16* to = y + (row * patches.columns.small + column) * out + n;
        WGAN_UNROLL for (int p = 0; p < kPixels; ++p) {
          write_rounded(sum[p][0], to + p * out);
          write_rounded(sum[p][1], to + p * out + kLanes);
        }
      });
    }
  }
}

// sums[taps, kPanel] += Σ over the pixels of a pair of images; delta: [rows, columns, kPanel]
WGAN_PAIRS void add_images(const uint32_t* images, const Patches& patches, const uint32_t* delta, float* sums) {
  const int64_t step = patches.step();
  in_parts<Avx512::kMost>(patches.count(), [&](auto taps, int64_t first) __attribute__((always_inline)) {
    constexpr int kTaps = taps;
    int64_t offsets[kTaps];
    std::copy_n(patches.taps.data() + first, kTaps, offsets);
    Vector sum[kTaps][2] = {};
    const uint32_t* of_pixel = delta;
    for (int64_t row = 0; row < patches.rows.small; ++row) {
      const uint32_t* from = patches.first(images, row);
      for (int64_t x = 0; x < patches.columns.small; ++x, from += step, of_pixel += kPanel) {
        const Pairs low = pairs_at(of_pixel), high = pairs_at(of_pixel + kLanes);
        WGAN_UNROLL for (int k = 0; k < kTaps; ++k) {
          const Pairs factor = Pairs{} + from[offsets[k]];
          add_products(sum[k][0], factor, low);
          add_products(sum[k][1], factor, high);
        }
      }
    }
    WGAN_UNROLL for (int k = 0; k < kTaps; ++k) {
      Avx512::at(sums + (first + k) * kPanel) += sum[k][0];
      Avx512::at(sums + (first + k) * kPanel + kLanes) += sum[k][1];
    }
  });
}

// A kernel [out, in, rows, columns] in any memory as [out/kPanel, rows, columns, words, kPanel]; a third channel is
// alone.
std::vector<uint32_t> panels_of(const Tensor& w) {
  const BFloat16* data = wgan::data<BFloat16>(w);
  std::vector<uint32_t> panels;
  for (int64_t n = 0; n < w.size(0); n += kPanel) {
    for (int64_t i = 0; i < w.size(2); ++i) {
      for (int64_t j = 0; j < w.size(3); ++j) {
        for (int64_t c = 0; c < w.size(1); c += 2) {
          for (int64_t l = n; l < n + kPanel; ++l) {
            const BFloat16* low = data + l * w.stride(0) + c * w.stride(1) + i * w.stride(2) + j * w.stride(3);
            const uint32_t high = c + 1 < w.size(1) ? low[w.stride(1)].x : 0;
            panels.push_back(low->x | high << 16);
          }
        }
      }
    }
  }
  return panels;
}

// large: [B, H, W, 2 to 4] → small: [B, h, w, small channels], the convolution
Tensor pairs_few(const Tensor& large, const Tensor& w, std::optional<Tensor> bias, int64_t height, int64_t width,
                 const std::vector<int64_t> geometry) {
  const char* op = "pairs_few";
  check_pairs(op, "large", large, w, 1, true);
  check_channels(op, "bias", bias, w.size(0), ScalarType::BFloat16);
  const Dimension rows = dimension_of(op, 0, w, large.size(1), height, geometry);
  const Dimension columns = dimension_of(op, 1, w, large.size(2), width, geometry);
  STD_TORCH_CHECK(rows.has_all() && columns.has_all(), op, ": has not so many pixels");
  const int64_t in = w.size(1), out = w.size(0), of_large = rows.large * columns.large * in;
  Tensor small = torch::stable::new_empty(large, {large.size(0), height, width, out});
  const std::vector<uint32_t> kernel = panels_of(w);
  const Patches patches(rows, columns, (in + 1) / 2);
  const BFloat16 *from = data<BFloat16>(large), *shift = data_or_null<BFloat16>(bias);
  BFloat16* to = mutable_data<BFloat16>(small);
  const int64_t of_small = height * width * out, work = of_small * patches.count();
  torch::stable::parallel_for(0, large.size(0), std::max<int64_t>(1, kWork / work), [&](int64_t begin, int64_t end) {
    std::vector<uint32_t> image(patches.size());
    for (int64_t b = begin; b < end; ++b) {
      pad(from + b * of_large, patches, in, image.data());
      forward_image(image.data(), patches, kernel.data(), shift, out, to + b * of_small);
    }
  });
  return small;
}

// small: [B, h, w, small channels] → like w
Tensor pairs_few_weights(const Tensor& large, const Tensor& small, const Tensor& w,
                         const std::vector<int64_t> geometry) {
  const char* op = "pairs_few_weights";
  check_pairs(op, "large", large, w, 1, true);
  check_pairs(op, "small", small, w, 0, true);
  STD_TORCH_CHECK(large.size(0) == small.size(0), op, ": batches differ");
  const Dimension rows = dimension_of(op, 0, w, large.size(1), small.size(1), geometry);
  const Dimension columns = dimension_of(op, 1, w, large.size(2), small.size(2), geometry);
  STD_TORCH_CHECK(rows.has_all() && columns.has_all(), op, ": small has pixels that large has not");
  Tensor result = torch::stable::empty_like(w);
  const int64_t in = w.size(1), out = w.size(0), samples = large.size(0), pairs = (samples + 1) / 2;
  const int64_t pixels = rows.small * columns.small, of_large = rows.large * columns.large * in;
  const Patches patches(rows, columns, in);
  const int64_t taps = patches.count(), parts = std::min(kParts, pairs), panels = out / kPanel;
  std::vector<float> sums(parts * taps * out);  // [part, panel, taps, kPanel]
  const BFloat16 *from = data<BFloat16>(large), *deltas = data<BFloat16>(small);
  const int64_t work = samples * pixels * taps * out / 2 / std::max<int64_t>(1, parts);
  torch::stable::parallel_for(
      0, parts, std::max<int64_t>(1, kWork / std::max<int64_t>(1, work)), [&](int64_t begin, int64_t end) {
        std::vector<uint32_t> images(patches.size()), delta(pixels * kPanel);
        for (int64_t part = begin; part < end; ++part) {
          for (int64_t p = part * pairs / parts; p < (part + 1) * pairs / parts; ++p) {
            const BFloat16* image = from + 2 * p * of_large;
            pad_both(image, 2 * p + 1 < samples ? image + of_large : nullptr, patches, images.data());
            for (int64_t n = 0; n < panels; ++n) {
              side_by_side<kPanel>(deltas, samples, pixels, out, n * kPanel, p, 1, delta.data());
              add_images(images.data(), patches, delta.data(), sums.data() + (part * panels + n) * taps * kPanel);
            }
          }
        }
      });
  BFloat16* to = mutable_data<BFloat16>(result);
  for (int64_t k = 0; k < taps; ++k) {
    const int64_t tap = k / in, i = tap / columns.taps, j = tap % columns.taps;
    BFloat16* entry = to + k % in * result.stride(1) + i * result.stride(2) + j * result.stride(3);
    for (int64_t n = 0; n < out; ++n) {
      float total = 0;
      for (int64_t part = 0; part < parts; ++part) {
        total += sums[((part * panels + n / kPanel) * taps + k) * kPanel + n % kPanel];
      }
      entry[n * result.stride(0)] = static_cast<BFloat16>(total);
    }
  }
  return result;
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) {
  m.impl("pairs_few", TORCH_BOX(&wgan::pairs_few));
  m.impl("pairs_few_weights", TORCH_BOX(&wgan::pairs_few_weights));
}
