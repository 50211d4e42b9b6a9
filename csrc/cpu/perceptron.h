// A multilayer perceptron, y_l = φ_l(z_l), z_l = W_l·y_{l−1} + b_l, over blocks of samples. Values of a block are
// [features, kPanel], so that weights are read where they lie: a row of them meets kPanel samples at once forward, a
// column backward.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <memory>
#include <type_traits>
#include <vector>

#include "../common/checks.h"
#include "../math/smooth.h"
#include "loops.h"
#include "products.h"

namespace wgan {

constexpr int64_t kRows = 12;       // of a weight gradient that one job makes
constexpr int64_t kFeatures = 16;   // of samples that are turned at once
constexpr int64_t kWork = 1 << 17;  // multiply-adds from which on a second thread pays

using math::Curve;

struct Layer {
  int64_t in, out, at;  // at: where its values begin among those of a block
  const float *w, *b;
  float slope;  // of the activation below 0: 0 is a ReLU, 1 none
  Curve curve;

  bool is_curved() const { return curve != Curve::kNone; }
};

struct Network {
  std::vector<Layer> layers;
  int64_t height = 0;   // values of a sample
  int64_t entries = 0;  // of all weights
  size_t bent = 0;      // layers up to the last curved one

  Network(const char* op, const std::vector<Tensor>& weights, const std::vector<double>& slopes,
          const std::vector<int64_t>& curves) {
    STD_TORCH_CHECK(!weights.empty() && weights.size() == slopes.size() && weights.size() == curves.size(), op,
                    ": a slope and a curve belong to each weight");
    for (size_t l = 0; l < weights.size(); ++l) {
      const Tensor& w = weights[l];
      STD_TORCH_CHECK(
          w.dim() == 2 && w.numel() > 0 && w.is_contiguous() && w.is_cpu() && w.scalar_type() == ScalarType::Float, op,
          ": weights must be contiguous matrices of float32 on the CPU, none of them empty");
      STD_TORCH_CHECK(l == 0 || w.size(1) == weights[l - 1].size(0), op, ": a weight does not fit the one before");
      STD_TORCH_CHECK(0 <= curves[l] && curves[l] <= static_cast<int64_t>(Curve::kElu), op, ": no such curve");
      layers.push_back({w.size(1), w.size(0), height, data<float>(w), nullptr, static_cast<float>(slopes[l]),
                        static_cast<Curve>(curves[l])});
      if (layers.back().is_curved()) bent = l + 1;
      height += w.size(0);
      entries += w.numel();
    }
  }
  int64_t in() const { return layers.front().in; }
  int64_t out() const { return layers.back().out; }
  int64_t widest() const {
    int64_t most = in();
    for (const Layer& layer : layers) most = std::max(most, layer.out);
    return most;
  }
  int64_t block_grain() const { return std::max<int64_t>(1, kWork / (entries * kPanel)); }
};

inline void check_matrix(const char* op, const char* name, const Tensor& t, int64_t rows, int64_t columns) {
  STD_TORCH_CHECK(t.dim() == 2 && t.size(0) == rows && t.size(1) == columns && t.is_contiguous() && t.is_cpu() &&
                      t.scalar_type() == ScalarType::Float,
                  op, ": ", name, " must be contiguous [", rows, ", ", columns, "] of float32 on the CPU");
}

inline int64_t blocks_of(int64_t samples) { return (samples + kPanel - 1) / kPanel; }

// What the sweeps keep of a block of samples, [height, kPanel] each. Of a network with curved layers also their φ′(z),
// and, if samples of the block are interpolated ones, φ″(z)·∂/∂y; else nullptr.
template <class Float>
struct Block {
  Float *values, *deltas, *slopes, *bends;
};

// Of all blocks: values [blocks, height, kPanel], behind them slopes; deltas likewise, behind them the bends of the
// blocks from `first` on.
template <class Float>
struct Kept {
  Float *values, *deltas;
  int64_t blocks, first, size;
  bool is_curved;

  Kept(const Network& network, int64_t samples, int64_t split)
      : values(nullptr),
        deltas(nullptr),
        blocks(blocks_of(samples)),
        first(split / kPanel),
        size(network.height * kPanel),
        is_curved(network.bent > 0) {}

  int64_t bent_blocks() const { return is_curved ? blocks - first : 0; }
  int64_t of_values() const { return is_curved ? 2 * blocks : blocks; }
  int64_t of_deltas() const { return blocks + bent_blocks(); }
  Block<Float> of(int64_t block) const {
    const bool is_bent = is_curved && block >= first;
    return {values + block * size, deltas + block * size, is_curved ? values + (blocks + block) * size : nullptr,
            is_bent ? deltas + (blocks + block - first) * size : nullptr};
  }
};

// to[rows, kPanel] = a[rows, depth]·from[depth, kPanel], of which so many samples are one, the others zeros
template <class Isa>
[[gnu::always_inline]] inline void product(Isa isa, int64_t rows, int64_t depth, const float* a, int64_t row,
                                           int64_t step, const float* from, float* to, int64_t samples) {
  int64_t made = isa.kLanes;
  if (samples <= made) {
    rows_product<false, 1>(isa, rows, depth, a, row, step, from, to, kPanel, samples);
  } else {
    made = (samples + 2 * made - 1) / (2 * made) * 2 * made;
    rows_product<false>(isa, rows, depth, a, row, step, from, to, kPanel, samples);
  }
  if (made == kPanel) return;
  for (int64_t r = 0; r < rows; ++r) std::fill(to + r * kPanel + made, to + (r + 1) * kPanel, 0.f);
}

// The samples [begin, end) of a block, [end − begin, width] → block[width, kPanel], with zeros for all others.
[[gnu::always_inline]] inline void to_block(const float* samples, int64_t begin, int64_t end, int64_t width,
                                            float* block) {
  for (int64_t f = 0; f < width; f += kFeatures) {
    const int64_t some = std::min(kFeatures, width - f);
    for (int64_t i = 0; i < some; ++i) {
      std::fill_n(block + (f + i) * kPanel, begin, 0.f);
      std::fill_n(block + (f + i) * kPanel + end, kPanel - end, 0.f);
    }
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t i = 0; i < some; ++i) block[(f + i) * kPanel + c] = samples[(c - begin) * width + f + i];
    }
  }
}

// d ← φ′∘d, of a layer
template <class Float>
[[gnu::always_inline]] inline void mask(const Layer& layer, const Block<Float>& block, float* d) {
  const int64_t count = layer.out * kPanel;
  const float slope = layer.slope, *y = block.values + layer.at * kPanel;
  if (layer.is_curved()) {
    const float* of = block.slopes + layer.at * kPanel;
    for (int64_t i = 0; i < count; ++i) d[i] *= of[i];
    return;
  }
  if (slope == 1.f) return;
  if (slope == 0.f) {
    for (int64_t i = 0; i < count; ++i) d[i] = y[i] <= 0.f ? 0.f : d[i];
  } else {
    for (int64_t i = 0; i < count; ++i) d[i] = y[i] > 0.f ? d[i] : d[i] * slope;
  }
}

// Of x: [N, in], of which curved layers alone read those that have a tangent, t: [N − split, in], the tangents of the
// last, and what the sweeps before have kept: gradients of the weights, then, unless split is 0 and no layer curved, of
// the biases.
std::vector<Tensor> gradients_of(const Network& network, const std::vector<Tensor>& weights, const Tensor& x,
                                 const Tensor& t, const Kept<const float>& kept);

inline std::unique_ptr<float[]> scratch_of(int64_t count) { return std::unique_ptr<float[]>(new float[count]); }

}  // namespace wgan
