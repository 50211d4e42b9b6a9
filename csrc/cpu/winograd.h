// The tiles of a convolution with a 4×4 or 3×3 kernel and stride 2, and what is done to each of them.
//
// Between a large image of 2·h rows and a small one of h, row 2·o − p + q + 2·a of the large one meets row o of the
// small one by tap q + 2·a. For each phase (q of rows, q of columns) that is a 2×2 kernel of stride 1 on every second
// pixel: four times minimal filtering. A kernel of 3×3 is one of 4×4 whose last row and column are zeros. Where q is 1
// it has one tap, of whose four points one is zero, and is left out.
#pragma once

#include "../math/winograd.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "../common/checks.h"
#include "elements.h"
#include "loops.h"
#include "products.h"

namespace wgan {

constexpr int kPhases = 4;
constexpr int kTaps = 4;  // of an axis, in all phases
constexpr int kProducts = math::kPoints * math::kPoints;

// Values at the points of a tile, or of a kernel's phase: [point][count], and between two points so much more that a
// power of two of `count` does not put all points into one set of a cache.
struct Points {
  float* data;
  int64_t apart;

  static constexpr int64_t distance(int64_t count) { return count + kPanel; }
  static constexpr int64_t size(int64_t count) { return kProducts * distance(count); }
  Points(float* data, int64_t count) : data(data), apart(distance(count)) {}
  float* at(int point) const { return data + point * apart; }
};

// [B, rows, columns, channels], contiguous
template <class T>
struct Images {
  T* data;
  int64_t rows, columns, channels;

  Images(T* data, const Tensor& of) : data(data), rows(of.size(1)), columns(of.size(2)), channels(of.size(3)) {}

  // null outside of the image
  [[gnu::always_inline]] T* pixel(int64_t image, int64_t y, int64_t x) const {
    const bool inside = y >= 0 && y < rows && x >= 0 && x < columns;
    return inside ? data + ((image * rows + y) * columns + x) * channels : nullptr;
  }
};

// To read from, with zeros around each.
struct Padded {
  Images<const float> images;
  Tensor zeros;
  const float* outside;

  Padded(const Tensor& of)
      : images(wgan::data<float>(of), of),
        zeros(torch::stable::new_zeros(of, {of.size(3)})),
        outside(wgan::data<float>(zeros)) {}

  [[gnu::always_inline]] const float* pixel(int64_t image, int64_t y, int64_t x) const {
    const float* p = images.pixel(image, y, x);
    return p ? p : outside;
  }
};

inline void check_images(const char* op, const char* name, const Tensor& t, const Tensor& w, int channels) {
  STD_TORCH_CHECK(t.dim() == 4 && t.is_contiguous() && t.is_cpu() && t.scalar_type() == ScalarType::Float, op, ": ",
                  name, " must be contiguous [B, rows, columns, channels] of float32 on the CPU");
  STD_TORCH_CHECK(w.dim() == 4 && (w.size(2) == 4 || w.size(2) == 3) && w.size(3) == w.size(2) &&
                      w.scalar_type() == ScalarType::Float && w.is_cpu() && w.size(0) % kPanel == 0 &&
                      w.size(1) % kPanel == 0 && w.numel() > 0,
                  op,
                  ": w must be [small channels, large channels, 4, 4] or [.., 3, 3] of float32 on the CPU, channels in "
                  "multiples of ",
                  kPanel);
  STD_TORCH_CHECK(t.size(3) == w.size(channels), op, ": ", name, " has other channels than w");
}

// Pixels of an axis in tiles of three, then of two, the last of which may stick out.
struct Axis {
  int64_t threes, twos;

  explicit Axis(int64_t size) {
    twos = size == 1 ? 1 : (3 - size % 3) % 3;
    threes = std::max<int64_t>(0, (size - 2 * twos) / 3);
  }
  int64_t count(int m) const { return m == 3 ? threes : twos; }
  int64_t begin(int m, int64_t i) const { return m == 3 ? 3 * i : 3 * threes + 2 * i; }
};

// Of a phase's kernel the points that are zeros, of rows and of columns; kPoints where there are none. Turned around,
// the tap that is missing is the first.
struct Zeros {
  int row, column;

  Zeros(int taps, int phase, bool turned) {
    const int point = turned ? 0 : math::kPoints - 1;
    row = taps < kTaps && phase / 2 ? point : math::kPoints;
    column = taps < kTaps && phase % 2 ? point : math::kPoints;
  }
  bool has(int point) const { return point / math::kPoints == row || point % math::kPoints == column; }
};

// Tiles [first, first + count) of all those of one shape, m rows by n columns, in one phase of a batch.
struct Block {
  int phase, m, n;
  int64_t first, count;
  Axis rows, columns;

  // f(index in the block, image, row, column): where each tile begins.
  template <class F>
  [[gnu::always_inline]] void each_tile(const F& f) const {
    const int64_t wide = columns.count(n), per_image = rows.count(m) * wide;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t tile = first + i, in_image = tile % per_image;
      f(i, tile / per_image, rows.begin(m, in_image / wide), columns.begin(n, in_image % wide));
    }
  }
  bool has(int point) const {
    return (m == 3 || point / math::kPoints != math::kMinus) && (n == 3 || point % math::kPoints != math::kMinus);
  }
};

inline void add_blocks(std::vector<Block>& blocks, int phase, int64_t batch, const Axis& rows, const Axis& columns,
                       int64_t length) {
  for (int m = 3; m >= 2; --m) {
    for (int n = 3; n >= 2; --n) {
      const int64_t tiles = batch * rows.count(m) * columns.count(n);
      for (int64_t first = 0; first < tiles; first += length) {
        blocks.push_back({phase, m, n, first, std::min(length, tiles - first), rows, columns});
      }
    }
  }
}

// f.operator()<m, n>() for the tiles of a block.
template <class F>
[[gnu::always_inline]] inline void of_shape(const Block& block, const F& f) {
  if (block.m == 3) {
    block.n == 3 ? f.template operator()<3, 3>() : f.template operator()<3, 2>();
  } else {
    block.n == 3 ? f.template operator()<2, 3>() : f.template operator()<2, 2>();
  }
}

struct Padding {
  int64_t rows, columns;
};

// The points of a block of tiles, of what is read and of what is written, in scratch memory.
struct Operands {
  int64_t in, out;

  // Tiles of a block: both operands of a point's product lie in a core's second cache (1 MB on an AMD EPYC).
  int64_t length() const { return std::max(in, out) <= 128 ? 48 : std::max(in, out) <= 256 ? 24 : 12; }
  int64_t scratch() const { return Points::size(length() * in) + Points::size(length() * out); }
  Points read(float* scratch) const { return {scratch, length() * in}; }
  Points written(float* scratch) const { return {scratch + Points::size(length() * in), length() * out}; }
};

// Where a tile's first pixel lies in an image, and how far apart its pixels are.
struct Pixels {
  int64_t row, column, step;
};

// Bᵀ d B of a tile with M×N outputs, from element `first` of each point on.
template <int M, int N, class Isa>
[[gnu::always_inline]] inline void to_points(Isa isa, const Padded& from, int64_t image, const Pixels& at,
                                             const Points& points, int64_t first) {
  const float* pixel[M + 1][N + 1];
  WGAN_UNROLL for (int i = 0; i <= M; ++i) {
    WGAN_UNROLL for (int j = 0; j <= N; ++j) {
      pixel[i][j] = from.pixel(image, at.row + i * at.step, at.column + j * at.step);
    }
  }
  for (int64_t c = 0; c < from.images.channels; c += isa.kLanes) {
    typename Isa::Vector d[M + 1][N + 1], half[math::kPoints][N + 1], row[math::kPoints];
    WGAN_UNROLL for (int i = 0; i <= M; ++i) {
      WGAN_UNROLL for (int j = 0; j <= N; ++j) d[i][j] = isa.at(pixel[i][j] + c);
    }
    WGAN_UNROLL for (int j = 0; j <= N; ++j) math::winograd_data<M>(&d[0][j], N + 1, &half[0][j], N + 1);
    WGAN_UNROLL for (int i = 0; i < math::kPoints; ++i) {
      if (M == 2 && i == math::kMinus) continue;
      math::winograd_data<N>(half[i], 1, row, 1);
      WGAN_UNROLL for (int j = 0; j < math::kPoints; ++j) {
        if (N == 3 || j != math::kMinus) isa.at(points.at(i * math::kPoints + j) + first + c) = row[j];
      }
    }
  }
}

// Aᵀ p A, and a bias where there is one.
template <int M, int N, class Isa>
[[gnu::always_inline]] inline void from_points(Isa isa, const Points& points, int64_t first, const float* bias,
                                               const Images<float>& to, int64_t image, const Pixels& at) {
  float* pixel[M][N];
  WGAN_UNROLL for (int i = 0; i < M; ++i) {
    WGAN_UNROLL for (int j = 0; j < N; ++j) {
      pixel[i][j] = to.pixel(image, at.row + i * at.step, at.column + j * at.step);
    }
  }
  for (int64_t c = 0; c < to.channels; c += isa.kLanes) {
    typename Isa::Vector p[math::kPoints][math::kPoints], half[M][math::kPoints], row[N];
    WGAN_UNROLL for (int i = 0; i < math::kPoints; ++i) {
      WGAN_UNROLL for (int j = 0; j < math::kPoints; ++j) {
        if ((M == 3 || i != math::kMinus) && (N == 3 || j != math::kMinus)) {
          p[i][j] = isa.at(points.at(i * math::kPoints + j) + first + c);
        }
      }
    }
    WGAN_UNROLL for (int j = 0; j < math::kPoints; ++j) {
      if (N == 3 || j != math::kMinus) {
        math::winograd_outputs<M>(&p[0][j], math::kPoints, &half[0][j], math::kPoints);
      }
    }
    typename Isa::Vector shift = {};
    if (bias) shift = isa.at(bias + c);
    WGAN_UNROLL for (int i = 0; i < M; ++i) {
      math::winograd_outputs<N>(half[i], 1, row, 1);
      WGAN_UNROLL for (int j = 0; j < N; ++j) {
        if (pixel[i][j]) isa.at(pixel[i][j] + c) = row[j] + shift;
      }
    }
  }
}

// Floats that begin as zeros: rows that no tile fills are multiplied too, for nobody.
struct Scratch {
  explicit Scratch(int64_t count) : data(static_cast<float*>(std::calloc(count, sizeof(float)))) {
    if (!data) throw std::bad_alloc();
  }
  float* get() const { return data.get(); }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> data;
};

// f(i, scratch) for i in [0, count), each by a thread that is free; every thread has a scratch of its own.
template <class F>
void parallel_jobs(int64_t count, int64_t scratch, const F& f) {
  std::atomic<int64_t> next = 0;
  torch::stable::parallel_for(0, count, 1, [&](int64_t, int64_t) {
    int64_t i = next++;
    if (i >= count) return;
    const Scratch own(scratch);
    for (; i < count; i = next++) f(i, own.get());
  });
}

}  // namespace wgan
