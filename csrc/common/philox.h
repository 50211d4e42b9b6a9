// Philox4x32-10, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", and torch's way from its bits to
// U[0, 1): what a CUDA generator of that seed and offset draws.
#pragma once

#include <cstdint>

#include "../math/host_device.h"

namespace wgan {

struct Words {
  uint32_t at[4];
};

// The four words of counter (block, subsequence) under the key `seed`, each of two words, low first.
WGAN_HD Words philox(uint64_t seed, uint64_t block, uint64_t subsequence) {
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  Words c = {{static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), static_cast<uint32_t>(subsequence),
              static_cast<uint32_t>(subsequence >> 32)}};
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * c.at[0], product1 = uint64_t{0xCD9E8D57} * c.at[2];
    c = {{static_cast<uint32_t>(product1 >> 32) ^ c.at[1] ^ key0, static_cast<uint32_t>(product1),
          static_cast<uint32_t>(product0 >> 32) ^ c.at[3] ^ key1, static_cast<uint32_t>(product0)}};
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return c;
}

// u = w·2⁻³² + 2⁻³³, and 0 where that rounds to 1. The product is exact: a fused multiply-add changes nothing.
WGAN_HD float unit_interval(uint32_t word) {
  const float u = static_cast<float>(word) * 2.3283064365386963e-10f + 1.1641532182693481e-10f;
  return u == 1.0f ? 0.0f : u;
}

// Element `index` of the float32 tensor that torch draws from U[0, 1) with `threads` threads: thread t owns the
// subsequence t and makes the elements t, t + threads, …, four of them from the four words of one block; the stream
// begins at block offset/4.
WGAN_HD float uniform(uint64_t seed, uint64_t offset, int64_t index, int64_t threads) {
  const uint64_t thread = static_cast<uint64_t>(index % threads), turn = static_cast<uint64_t>(index / threads);
  const Words words = philox(seed, offset / 4 + turn / 4, thread);
  const int word = static_cast<int>(turn % 4);  // chosen without an index: an indexed array would lie in memory
  return unit_interval(word == 0 ? words.at[0] : word == 1 ? words.at[1] : word == 2 ? words.at[2] : words.at[3]);
}

}  // namespace wgan
