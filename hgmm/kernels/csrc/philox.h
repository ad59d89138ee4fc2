// Philox4x32-10 of Salmon et al., SC 2011: random words as a function of a counter and a key, so that no state is
// shared between threads and the backward pass finds the forward's numbers again. hgmm/kernels/_philox.py is the same
// in torch.
#pragma once

#include <cstdint>

namespace hgmm {

struct Philox {
  uint32_t word[4];

  Philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t key0, uint32_t key1) : word{c0, c1, c2, c3} {
    for (int round = 0; round < 10; ++round) {
      const uint64_t a = uint64_t{0xD2511F53} * word[0], b = uint64_t{0xCD9E8D57} * word[2];
      word[0] = uint32_t(b >> 32) ^ word[1] ^ key0;
      word[2] = uint32_t(a >> 32) ^ word[3] ^ key1;
      word[1] = uint32_t(b);
      word[3] = uint32_t(a);
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
  }
};

// The same for kLanes counters at a time: word[i][lane] is word i of the counter (c0[lane], c1[lane], c2, c3).
struct PhiloxLanes {
  static constexpr int kLanes = 16;

  uint32_t word[4][kLanes];

  PhiloxLanes(const uint32_t* c0, const uint32_t* c1, uint32_t c2, uint32_t c3, uint32_t key0, uint32_t key1) {
    for (int lane = 0; lane < kLanes; ++lane) {
      word[0][lane] = c0[lane];
      word[1][lane] = c1[lane];
      word[2][lane] = c2;
      word[3][lane] = c3;
    }
    for (int round = 0; round < 10; ++round) {
#pragma omp simd
      for (int lane = 0; lane < kLanes; ++lane) {
        const uint64_t a = uint64_t{0xD2511F53} * word[0][lane], b = uint64_t{0xCD9E8D57} * word[2][lane];
        word[0][lane] = uint32_t(b >> 32) ^ word[1][lane] ^ key0;
        word[2][lane] = uint32_t(a >> 32) ^ word[3][lane] ^ key1;
        word[1][lane] = uint32_t(b);
        word[3][lane] = uint32_t(a);
      }
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
  }
};

}  // namespace hgmm
