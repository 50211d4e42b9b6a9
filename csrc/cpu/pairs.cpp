// The input gradient of a convolution in bfloat16, which is a transposed convolution, too: one instruction adds the
// products of two channels to a sum.
#include "pairs.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <memory>
#include <optional>

namespace wgan {
namespace {

constexpr int kRows = 8;            // pixels at once, in two vectors each
constexpr int64_t kPixels = 64;     // that meet a panel of the kernel while that is in the cache
constexpr int64_t kWork = 1 << 17;  // pairs multiplied from which on a second thread pays

// Of a dimension every so manieth pixel of the large image, `count` of them from `first` on: they meet the same taps.
struct Phase {
  int64_t first, count;
  std::vector<int64_t> taps, offsets;  // and by each tap the first of them that pixel of the small image
};

std::vector<Phase> phases_of(const Dimension& dimension) {
  std::vector<Phase> phases;
  for (int64_t q = 0; q < std::min(dimension.stride, dimension.large); ++q) {
    Phase phase{q, (dimension.large - q + dimension.stride - 1) / dimension.stride, {}, {}};
    for (int64_t i = 0; i < dimension.taps; ++i) {
      const int64_t steps = q + dimension.padding - i;
      if (steps % dimension.stride) continue;
      phase.taps.push_back(i);
      phase.offsets.push_back(steps / dimension.stride);
    }
    phases.push_back(phase);
  }
  return phases;
}

// A kernel [small, large, rows, columns] in any memory as [panel of large, tap, small/2, kPanel].
struct Kernel {
  int64_t small, large, columns, of_tap, of_panel;
  std::unique_ptr<uint32_t[]> pairs;

  Kernel(const Tensor& w)
      : small(w.size(0)),
        large(w.size(1)),
        columns(w.size(3)),
        of_tap(small / 2 * kPanel),
        of_panel(w.size(2) * columns * of_tap),
        pairs(new uint32_t[large / kPanel * of_panel]) {
    const int64_t of_small = w.stride(0), of_large = w.stride(1), row = w.stride(2), column = w.stride(3);
    const BFloat16* data = wgan::data<BFloat16>(w);
    torch::stable::parallel_for(0, large / kPanel, 2, [&](int64_t begin, int64_t end) {
      uint32_t* to = pairs.get() + begin * of_panel;
      for (int64_t n = begin * kPanel; n < end * kPanel; n += kPanel) {
        for (int64_t tap = 0; tap < of_panel / of_tap; ++tap) {
          const BFloat16* from = data + n * of_large + tap / columns * row + tap % columns * column;
          for (int64_t k = 0; k < small; k += 2, from += 2 * of_small) {
            for (int64_t l = 0; l < kPanel; ++l) {
              const BFloat16 *low = from + l * of_large, *high = low + of_small;
              *to++ = low->x | static_cast<uint32_t>(high->x) << 16;
            }
          }
        }
      }
    });
  }
  const uint32_t* tap(int64_t i, int64_t j) const { return pairs.get() + (i * columns + j) * of_tap; }
};

// Up to kPixels pixels of a phase, and by each of its taps what they meet.
struct Pixels {
  BFloat16* written[kPixels];
  std::vector<const BFloat16*> met;     // [tap, kPixels]
  std::vector<const uint32_t*> kernel;  // [tap], of a panel
  int64_t count;
};

// Σ over taps, of a panel of channels
WGAN_PAIRS void multiply(const Pixels& pixels, int64_t pairs, int64_t channel, const BFloat16* bias) {
  const int64_t count = pixels.count, taps = static_cast<int64_t>(pixels.kernel.size());
  Vector shift[2] = {};
  if (bias) {
    read(Avx512{}, bias + channel, shift[0]);
    read(Avx512{}, bias + channel + kLanes, shift[1]);
  }
  for (int64_t first = 0; first < count; first += kRows) {
    Vector sum[kRows][2];
    WGAN_UNROLL for (int r = 0; r < kRows; ++r) {
      sum[r][0] = shift[0];
      sum[r][1] = shift[1];
    }
    for (int64_t t = 0; t < taps; ++t) {
      const uint32_t *kernel = pixels.kernel[t], *from[kRows];
      WGAN_UNROLL for (int r = 0; r < kRows; ++r) {
        from[r] = reinterpret_cast<const uint32_t*>(pixels.met[t * kPixels + first + r]);
      }
      for (int64_t k = 0; k < pairs; ++k) {
        const Pairs low = pairs_at(kernel + k * kPanel), high = pairs_at(kernel + k * kPanel + kLanes);
        WGAN_UNROLL for (int r = 0; r < kRows; ++r) {
          const Pairs factor = Pairs{} + from[r][k];
          add_products(sum[r][0], factor, low);
          add_products(sum[r][1], factor, high);
        }
      }
    }
    for (int r = 0; r < kRows && first + r < count; ++r) {
      write_rounded(sum[r][0], pixels.written[first + r] + channel);
      write_rounded(sum[r][1], pixels.written[first + r] + channel + kLanes);
    }
  }
}

// The pixels [first, first + count) of a phase of all images.
struct Job {
  const Phase &rows, &columns;
  int64_t first, count;
};

struct Images {
  const BFloat16 *small, *outside;  // outside: zeros
  BFloat16* large;
  Dimension rows, columns;

  void find(const Job& job, const Kernel& kernel, Pixels& pixels) const {
    pixels.count = job.count;
    pixels.met.assign(job.rows.taps.size() * job.columns.taps.size() * kPixels, outside);
    pixels.kernel.clear();
    for (int64_t i : job.rows.taps) {
      for (int64_t j : job.columns.taps) pixels.kernel.push_back(kernel.tap(i, j));
    }
    for (int64_t p = 0, length; p < job.count; p += length) {  // line by line
      const int64_t column = (job.first + p) % job.columns.count, line = (job.first + p) / job.columns.count;
      const int64_t row = line % job.rows.count, image = line / job.rows.count;
      length = std::min(job.columns.count - column, job.count - p);
      const int64_t y = job.rows.first + row * rows.stride, x = job.columns.first + column * columns.stride;
      BFloat16* to = large + ((image * rows.large + y) * columns.large + x) * kernel.large;
      for (int64_t k = 0; k < length; ++k) pixels.written[p + k] = to + k * columns.stride * kernel.large;
      const BFloat16** met = pixels.met.data() + p;
      for (int64_t dy : job.rows.offsets) {
        const bool inside = row + dy >= 0 && row + dy < rows.small;
        const BFloat16* from = small + (image * rows.small + row + dy) * columns.small * kernel.small;
        for (int64_t dx : job.columns.offsets) {
          const int64_t first = column + dx, end = inside ? std::min(length, columns.small - first) : 0;
          for (int64_t k = std::max<int64_t>(0, -first); k < end; ++k) met[k] = from + (first + k) * kernel.small;
          met += kPixels;
        }
      }
    }
  }
};

// small: [B, h, w, small channels] → large: [B, height, width, large channels]
Tensor pairs_up(const Tensor& small, const Tensor& w, std::optional<Tensor> bias, int64_t height, int64_t width,
                const std::vector<int64_t> geometry) {
  const char* op = "pairs_up";
  check_pairs(op, "small", small, w, 0);
  check_channels(op, "bias", bias, w.size(1), ScalarType::BFloat16);
  STD_TORCH_CHECK(height > 0 && width > 0, op, ": no pixel is left");
  const Dimension rows = dimension_of(op, 0, w, height, small.size(1), geometry);
  const Dimension columns = dimension_of(op, 1, w, width, small.size(2), geometry);
  Tensor large = torch::stable::new_empty(small, {small.size(0), height, width, w.size(1)});
  const std::vector<Phase> of_rows = phases_of(rows), of_columns = phases_of(columns);
  std::vector<Job> jobs;
  for (const Phase& r : of_rows) {
    for (const Phase& c : of_columns) {
      const int64_t pixels = small.size(0) * r.count * c.count;
      for (int64_t i = 0; i < pixels; i += kPixels) jobs.push_back({r, c, i, std::min(kPixels, pixels - i)});
    }
  }
  const Kernel kernel(w);
  const Tensor zeros = torch::stable::new_zeros(small, {kernel.small});
  const BFloat16* shift = data_or_null<BFloat16>(bias);
  const Images images{data<BFloat16>(small), data<BFloat16>(zeros), mutable_data<BFloat16>(large), rows, columns};
  const int64_t work = kPixels * kernel.of_panel / kPanel * kernel.large, grain = std::max<int64_t>(1, kWork / work);
  torch::stable::parallel_for(0, static_cast<int64_t>(jobs.size()), grain, [&](int64_t begin, int64_t end) {
    Pixels pixels;
    for (int64_t i = begin; i < end; ++i) {
      images.find(jobs[i], kernel, pixels);
      for (int64_t n = 0; n < kernel.large; n += kPanel) {
        multiply(pixels, kernel.small / 2, n, shift);
        for (const uint32_t*& tap : pixels.kernel) tap += kernel.of_panel;
      }
    }
  });
  return large;
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) { m.impl("pairs_up", TORCH_BOX(&wgan::pairs_up)); }
