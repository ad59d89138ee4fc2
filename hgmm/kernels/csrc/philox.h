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

}  // namespace hgmm
