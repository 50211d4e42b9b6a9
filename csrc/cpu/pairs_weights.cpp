// The weight gradient of a convolution in bfloat16, Σ δ·x over samples and pixels. The values of two samples are laid
// side by side, whose products one instruction adds to a sum.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <memory>

#include "pairs.h"

namespace wgan {
namespace {

constexpr int kRows = 8;              // of sums at once, in two vectors each
constexpr int64_t kSlice = 128;       // channels of the small image to a job: its sums lie in a core's second cache
constexpr int64_t kJobs = 8;          // that there are, where samples allow it, so that many threads have some
constexpr int64_t kImages = 6 << 10;  // words of the large image that a first cache holds beside those of the small one

// What a job makes: sums over the pairs [begin, end) of samples for `panel` of the large image's channels and those of
// the small one from `first` on.
struct Job {
  int64_t panel, first, width, begin, end;
  float* sums;  // [tap, kSlice, kPanel]
};

// How sums are shared out. It depends on sizes alone, and with it the order of what is added.
struct Jobs {
  int64_t pairs, small, of_job, panels, slices, parts;
  std::unique_ptr<float[]> sums;

  Jobs(const Tensor& w, int64_t pairs)
      : pairs(pairs),
        small(w.size(0)),
        of_job(w.size(2) * w.size(3) * kSlice * kPanel),
        panels(w.size(1) / kPanel),
        slices((small + kSlice - 1) / kSlice),
        parts(std::clamp<int64_t>(kJobs / (panels * slices), 1, pairs)),
        sums(new float[count() * of_job]) {}

  int64_t count() const { return parts * panels * slices; }
  Job operator[](int64_t i) const {
    const int64_t part = i % parts, panel = i / parts % panels, first = i / parts / panels * kSlice;
    return {panel,
            first,
            std::min(kSlice, small - first),
            part * pairs / parts,
            (part + 1) * pairs / parts,
            sums.get() + i * of_job};
  }
  // Of the first part of the samples; the other parts' follow.
  const float* first_of(int64_t channel, int64_t panel) const {
    return sums.get() + (channel / kSlice * panels + panel) * parts * of_job;
  }
};

// Images in pairs: large [pairs, rows, columns, kPanel], small [width/kLanes, pairs, rows, columns, kLanes].
struct Block {
  const uint32_t *large, *small;
  int64_t pairs, width;
};

// sums[width, kPanel] (+)= Σ over the pixels of a block's small images that meet something by tap (i, j).
WGAN_PAIRS void add_tap(const Block& block, const Dimension& rows, const Dimension& columns, int64_t i, int64_t j,
                        bool adds, float* sums) {
  const int64_t left = columns.begin(j), right = columns.end(j), step = columns.stride * kPanel;
  const int64_t of_small = rows.small * columns.small * kLanes, of_large = rows.large * columns.large * kPanel;
  for (int64_t n = 0; n < block.width; n += kRows) {
    Vector sum[kRows][2] = {};
    const uint32_t* panel = block.small + n / kLanes * block.pairs * of_small + n % kLanes;
    for (int64_t p = 0; p < block.pairs; ++p) {
      for (int64_t y = rows.begin(i); y < rows.end(i); ++y) {
        const uint32_t* small = panel + p * of_small + (y * columns.small + left) * kLanes;
        const uint32_t* large =
            block.large + p * of_large + (rows.at(y, i) * columns.large + columns.at(left, j)) * kPanel;
        for (int64_t k = left; k < right; ++k, small += kLanes, large += step) {
          const Pairs low = pairs_at(large), high = pairs_at(large + kLanes);
          WGAN_UNROLL for (int r = 0; r < kRows; ++r) {
            const Pairs factor = Pairs{} + small[r];
            add_products(sum[r][0], factor, low);
            add_products(sum[r][1], factor, high);
          }
        }
      }
    }
    WGAN_UNROLL for (int r = 0; r < kRows; ++r) {
      WGAN_UNROLL for (int v = 0; v < 2; ++v) {
        Avx512::Lying& total = Avx512::at(sums + (n + r) * kPanel + v * kLanes);
        total = adds ? total + sum[r][v] : sum[r][v];
      }
    }
  }
}

// The totals for the small image's channels [begin, end), into a kernel in any memory.
WGAN_PAIRS void write_totals(const Jobs& jobs, int64_t begin, int64_t end, Tensor& w) {
  BFloat16* data = mutable_data<BFloat16>(w);
  for (int64_t n = begin; n < end; ++n) {
    for (int64_t c = 0; c < w.size(1); c += kLanes) {
      const float* sums = jobs.first_of(n, c / kPanel) + n % kSlice * kPanel + c % kPanel;
      for (int64_t i = 0; i < w.size(2); ++i) {
        for (int64_t j = 0; j < w.size(3); ++j, sums += kSlice * kPanel) {
          Vector total = {};
          for (int64_t part = 0; part < jobs.parts; ++part) total += Avx512::at(sums + part * jobs.of_job);
          write_strided(Avx512{}, total, w.stride(1),
                        data + n * w.stride(0) + c * w.stride(1) + i * w.stride(2) + j * w.stride(3));
        }
      }
    }
  }
}

// large: [B, H, W, large channels]; small: [B, h, w, small channels] → like w: Σ over pixels, the weight gradient of
// the convolution for an output gradient `small`, and of the transposed one of `small` for `large`
Tensor pairs_weights(const Tensor& large, const Tensor& small, const Tensor& w, const std::vector<int64_t> geometry) {
  const char* op = "pairs_weights";
  check_pairs(op, "large", large, w, 1);
  check_pairs(op, "small", small, w, 0);
  STD_TORCH_CHECK(large.size(0) == small.size(0), op, ": batches differ");
  const Dimension rows = dimension_of(op, 0, w, large.size(1), small.size(1), geometry);
  const Dimension columns = dimension_of(op, 1, w, large.size(2), small.size(2), geometry);
  Tensor result = torch::stable::empty_like(w);
  if (!large.numel() || !small.numel()) return torch::stable::zero_(result);
  const int64_t samples = large.size(0), of_large = rows.large * columns.large, of_small = rows.small * columns.small;
  const Jobs jobs(w, (samples + 1) / 2);
  const BFloat16 *all_large = data<BFloat16>(large), *all_small = data<BFloat16>(small);
  torch::stable::parallel_for(0, jobs.count(), 1, [&](int64_t begin, int64_t end) {
    const int64_t length = std::clamp<int64_t>(kImages / (of_large * kPanel), 1, jobs.pairs);
    const std::unique_ptr<uint32_t[]> scratch(new uint32_t[length * (of_large * kPanel + of_small * kSlice)]);
    uint32_t *some_large = scratch.get(), *some_small = some_large + length * of_large * kPanel;
    for (int64_t i = begin; i < end; ++i) {
      const Job job = jobs[i];
      for (int64_t first = job.begin; first < job.end; first += length) {
        const int64_t count = std::min(length, job.end - first);
        side_by_side<kPanel>(all_large, samples, of_large, w.size(1), job.panel * kPanel, first, count, some_large);
        for (int64_t n = 0; n < job.width; n += kLanes) {
          side_by_side<kLanes>(all_small, samples, of_small, w.size(0), job.first + n, first, count,
                               some_small + n * count * of_small);
        }
        for (int64_t tap = 0; tap < rows.taps * columns.taps; ++tap) {
          add_tap({some_large, some_small, count, job.width}, rows, columns, tap / columns.taps, tap % columns.taps,
                  first > job.begin, job.sums + tap * kSlice * kPanel);
        }
      }
    }
  });
  torch::stable::parallel_for(0, w.size(0), 8,
                              [&](int64_t begin, int64_t end) { write_totals(jobs, begin, end, result); });
  return result;
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) { m.impl("pairs_weights", TORCH_BOX(&wgan::pairs_weights)); }
