// The sums of layer_norm: over rows, and over samples for the weights. Each in one order, whatever the number of
// threads.
#pragma once

#include "../common/layer_norm.h"

#include <array>

#include "loops.h"
#include "sum.h"

namespace wgan {

// mean[s] = Σ_i f(i)[s] / count, for use within a WGAN_CLONES function: by lanes in the compute type, in double from
// chunk to chunk.
template <class C, int kSums, class F>
[[gnu::always_inline]] inline void row_means(int64_t count, double (&mean)[kSums], const F& f) {
  constexpr int64_t kLanes = kSums == 1 ? 64 : kSums == 2 ? 32 : 16;
  for (double& m : mean) m = 0;
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t end = std::min(count, begin + kChunk);
    C lane[kSums][kLanes] = {};
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      for (int64_t l = 0; l < kLanes; ++l) {
        const std::array<C, kSums> terms = f(i + l);
        for (int s = 0; s < kSums; ++s) lane[s][l] += terms[s];
      }
    }
    C rest[kSums][kLanes] = {};  // not the lanes themselves, which an index unknown to the compiler keeps in memory
    for (int64_t l = 0; l < end - i; ++l) {
      const std::array<C, kSums> terms = f(i + l);
      for (int s = 0; s < kSums; ++s) rest[s][l] = terms[s];
    }
    for (int s = 0; s < kSums; ++s) {
      for (int64_t l = 0; l < kLanes; ++l) lane[s][l] += rest[s][l];
      for (int64_t half = kLanes / 2; half > 0; half /= 2) {
        for (int64_t l = 0; l < half; ++l) lane[s][l] += lane[s][l + half];
      }
      mean[s] += lane[s][0];
    }
  }
  for (double& m : mean) m /= static_cast<double>(count);
}

constexpr int64_t kTile = 256;    // weights whose gradients are summed at once
constexpr int64_t kSamples = 32;  // samples that are added in the compute type, before their sum goes on in double

// out[s][k] = Σ over the samples of the terms that f(sample, term) adds to term[s][k], k < count ≤ kTile.
template <int kSums, class C, class F>
[[gnu::always_inline]] inline void sample_sums(int64_t samples, int64_t count, C* const (&out)[kSums], const F& f) {
  double total[kSums][kTile] = {};
  for (int64_t begin = 0; begin < samples; begin += kSamples) {
    C term[kSums][kTile] = {};
    for (int64_t sample = begin; sample < std::min(samples, begin + kSamples); ++sample) f(sample, term);
    for (int s = 0; s < kSums; ++s) {
      for (int64_t k = 0; k < count; ++k) total[s][k] += term[s][k];
    }
  }
  for (int s = 0; s < kSums; ++s) {
    for (int64_t k = 0; k < count; ++k) out[s][k] = static_cast<C>(total[s][k]);
  }
}

// f(first, last): rows in parallel.
template <class F>
void parallel_norm(const Norm& norm, const F& f) {
  torch::stable::parallel_for(0, norm.rows, std::max<int64_t>(1, kGrain / 2 / std::max<int64_t>(1, norm.width)), f);
}

// f(set, begin, count): tiles of weights in parallel, in the same order of samples for any number of threads.
template <class F>
void parallel_weights(const Norm& norm, const F& f) {
  const int64_t tiles = (norm.width + kTile - 1) / kTile;
  const int64_t grain = std::max<int64_t>(1, kGrain / 2 / std::max<int64_t>(1, kTile * norm.samples()));
  torch::stable::parallel_for(0, norm.sets * tiles, grain, [&](int64_t first, int64_t last) {
    for (int64_t tile = first; tile < last; ++tile) {
      const int64_t begin = tile % tiles * kTile;
      f(tile / tiles, begin, std::min(kTile, norm.width - begin));
    }
  });
}

}  // namespace wgan
