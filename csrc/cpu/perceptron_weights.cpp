// The last sweeps over a perceptron: tangents forward, and the gradients of its weights over all samples.
#include <torch/csrc/stable/library.h>

#include "perceptron.h"

namespace wgan {
namespace {

// What a layer reads of all samples, as the second factor of its weight gradient: [in/kPanel, samples, kPanel].
struct Panels {
  float* data;
  int64_t width, samples;

  // Entry (sample, feature) of samples from `first` on, at from[(sample − first)·sample_step + feature·feature_step],
  // with zeros behind the last feature.
  [[gnu::always_inline]] void fill(const float* from, int64_t sample_step, int64_t feature_step, int64_t first,
                                   int64_t count) const {
    for (int64_t f = 0; f < width; f += kPanel) {
      const int64_t some = std::min(kPanel, width - f);
      for (int64_t c = 0; c < count; ++c) {
        float* to = data + f * samples + (first + c) * kPanel;
        for (int64_t i = 0; i < some; ++i) to[i] = from[c * sample_step + (f + i) * feature_step];
        std::fill(to + some, to + kPanel, 0.f);
      }
    }
  }
};

// The samples [begin, end) of a block whose first is `first`.
WGAN_CLONES void block_to_panels(const float* block, int64_t first, int64_t begin, int64_t end, const Panels& panels) {
  panels.fill(block + begin, 1, kPanel, first + begin, end - begin);
}

// The tangents [begin, end) of a block, [end − begin, in] → block[in, kPanel] and the panels of the first layer.
WGAN_CLONES void read_tangents(const float* t, int64_t first, int64_t begin, int64_t end, const Panels& panels,
                               float* block) {
  panels.fill(t, panels.width, 1, first + begin, end - begin);
  to_block(t, begin, end, panels.width, block);
}

WGAN_CLONES void read_samples(const float* samples, int64_t first, int64_t count, const Panels& panels) {
  panels.fill(samples, panels.width, 1, first, count);
}

// to = φ′∘(W t)
WGAN_CLONES void push(const Layer& layer, const float* t, const float* y, float* to) {
  product(layer.out, layer.in, layer.w, layer.in, 1, t, to);
  mask(layer, y, to);
}

// The deltas of all samples.
struct Deltas {
  const float* data;
  int64_t height, samples;
};

constexpr int64_t kRun = 8 * kPanel;  // samples whose sum is added as one, for the rounding of many

// Of a weight gradient, Σ δ·input over all samples, the rows from `first` on, kRows of them, and the columns of a
// panel.
WGAN_CLONES void weight_panel(const Layer& layer, int64_t first, const Deltas& deltas, const float* panel,
                              int64_t column, float* grad) {
  const int64_t columns = std::min(kPanel, layer.in - column);
  in_groups(std::min(kRows, layer.out - first), [&](auto count, int64_t r) __attribute__((always_inline)) {
    constexpr int kCount = count;
    const float* a = deltas.data + (layer.at + first + r) * kPanel;
    float scratch[kCount * kPanel];
    float* of_rows = grad + (first + r) * layer.in + column;
    float* to = columns == kPanel ? of_rows : scratch;
    const int64_t apart = columns == kPanel ? layer.in : kPanel;
    for (int64_t begin = 0; begin == 0 || begin < deltas.samples; begin += kRun) {
      Sums<kCount> sum = {};
      for (int64_t s = begin; s < std::min(deltas.samples, begin + kRun); s += kPanel) {
        add_product<kCount>(sum, std::min(kPanel, deltas.samples - s), a + s * deltas.height, kPanel, 1,
                            panel + s * kPanel);
      }
      begin == 0 ? store<kCount, false>(sum, to, apart) : store<kCount, true>(sum, to, apart);
    }
    if (columns < kPanel) {
      for (int i = 0; i < kCount; ++i) std::copy_n(scratch + i * kPanel, columns, of_rows + i * layer.in);
    }
  });
}

// Of a bias's gradient, Σ δ over the first samples, so many rows.
WGAN_CLONES void bias_rows(const Layer& layer, int64_t first, int64_t rows, const Deltas& deltas, int64_t samples,
                           float* grad) {
  for (int64_t r = first; r < first + rows; ++r) {
    float sum = 0;
    for (int64_t s = 0; s < samples; s += kPanel) {
      const float* delta = deltas.data + s * deltas.height + (layer.at + r) * kPanel;
      float of_block = 0;  // two levels, for the rounding of many samples
      for (int64_t i = 0; i < std::min(kPanel, samples - s); ++i) of_block += delta[i];
      sum += of_block;
    }
    grad[r] = sum;
  }
}

// The gradients of weights in Σ ⟨δ, y⟩ over the first samples and Σ ⟨t, Jᵀδ⟩ over those that have a tangent, and of
// biases in the first sum.
class Gradients {
 public:
  Gradients(const Network& network, const std::vector<Tensor>& weights, const Tensor& x, const Tensor& t,
            const Tensor& values, const Tensor& deltas)
      : network_(network),
        x_(data<float>(x)),
        t_(data<float>(t)),
        values_(data<float>(values)),
        split_(x.size(0)),
        samples_(x.size(0) + t.size(0)),
        deltas_{data<float>(deltas), network.height, samples_} {
    int64_t read = 0;
    for (const Layer& layer : network.layers) read += blocks_of(layer.in) * kPanel * samples_;
    inputs_ = torch::stable::new_empty(t, {read});
    float* next = mutable_data<float>(inputs_);
    for (size_t l = 0; l < weights.size(); ++l) {
      const Layer& layer = network.layers[l];
      panels_.push_back({next, layer.in, samples_});
      next += blocks_of(layer.in) * kPanel * samples_;
      jobs_.push_back((l == 0 ? 0 : jobs_.back()) + (layer.out + kRows - 1) / kRows * blocks_of(layer.in));
      of_weights.push_back(torch::stable::empty_like(weights[l]));
      if (split_ > 0) of_biases.push_back(torch::stable::new_empty(t, {layer.out}));
    }
  }

  // What layers read of a block: values of the first samples, tangents of the others, which are pushed forward here.
  void push_block(int64_t block, float* scratch) const {
    const int64_t first = block * kPanel, count = std::min(kPanel, samples_ - first), in = network_.in();
    const int64_t begin = std::min(count, std::max<int64_t>(0, split_ - first));  // of tangents
    const float* y = values_ + block * network_.height * kPanel;
    const float* tangents = t_ + (first + begin - split_) * in;
    float *from = scratch, *to = scratch + network_.widest() * kPanel;
    read_samples(x_ + first * in, first, begin, panels_[0]);
    if (begin < count) read_tangents(tangents, first, begin, count, panels_[0], from);
    for (size_t l = 1; l < network_.layers.size(); ++l) {
      const Layer& layer = network_.layers[l - 1];
      block_to_panels(y + layer.at * kPanel, first, 0, begin, panels_[l]);
      if (begin < count) {
        push(layer, from, y + layer.at * kPanel, to);
        block_to_panels(to, first, begin, count, panels_[l]);
        std::swap(from, to);
      }
    }
  }

  int64_t jobs() const { return jobs_.back(); }
  int64_t job_grain() const { return std::max<int64_t>(1, kWork / (kRows * kPanel * std::max<int64_t>(1, samples_))); }

  void run_job(int64_t job) {
    const size_t l = std::upper_bound(jobs_.begin(), jobs_.end(), job) - jobs_.begin();
    const Layer& layer = network_.layers[l];
    const int64_t within = job - (l == 0 ? 0 : jobs_[l - 1]), panels = blocks_of(layer.in);
    const int64_t first = within / panels * kRows, column = within % panels * kPanel;
    weight_panel(layer, first, deltas_, panels_[l].data + column * samples_, column,
                 mutable_data<float>(of_weights[l]));
    if (column == 0 && split_ > 0) {
      bias_rows(layer, first, std::min(kRows, layer.out - first), deltas_, split_, mutable_data<float>(of_biases[l]));
    }
  }

  std::vector<Tensor> of_weights, of_biases;

 private:
  const Network& network_;
  const float *x_, *t_, *values_;
  int64_t split_, samples_;
  Deltas deltas_;
  Tensor inputs_;
  std::vector<Panels> panels_;
  std::vector<int64_t> jobs_;  // those of the layers up to here
};

// x: [split, in]; t: [N − split, in], tangents at the other samples; values, deltas: of the sweeps before → gradients
// of the weights, then, unless split is 0, of the biases
std::vector<Tensor> perceptron_finish(const Tensor& x, const Tensor& t, const Tensor& values, const Tensor& deltas,
                                      const std::vector<Tensor> weights, const std::vector<double> slopes) {
  const Network network("perceptron_finish", weights, slopes);
  const int64_t samples = x.size(0) + t.size(0);
  check_matrix("perceptron_finish", "x", x, x.size(0), network.in());
  check_matrix("perceptron_finish", "t", t, t.size(0), network.in());
  STD_TORCH_CHECK(values.numel() == blocks_of(samples) * network.height * kPanel && values.is_contiguous() &&
                      values.is_cpu() && values.scalar_type() == ScalarType::Float,
                  "perceptron_finish: values must be those of the sweeps before");
  check_like("perceptron_finish", "deltas", deltas, values);
  Gradients gradients(network, weights, x, t, values, deltas);
  torch::stable::parallel_for(0, blocks_of(samples), network.block_grain(), [&](int64_t begin, int64_t end) {
    const auto scratch = scratch_of(2 * network.widest() * kPanel);
    for (int64_t block = begin; block < end; ++block) gradients.push_block(block, scratch.get());
  });
  torch::stable::parallel_for(0, gradients.jobs(), gradients.job_grain(), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; ++job) gradients.run_job(job);
  });
  std::vector<Tensor> all = std::move(gradients.of_weights);
  all.insert(all.end(), gradients.of_biases.begin(), gradients.of_biases.end());
  return all;
}

}  // namespace
}  // namespace wgan

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, m) { m.impl("perceptron_finish", TORCH_BOX(&wgan::perceptron_finish)); }
