// Philox4x32-10 of Salmon et al., SC 2011: random words as a function of a counter and a key, so that no state is
// shared between threads and the backward pass finds the forward's numbers again. hgmm/kernels/_philox.py is the same
// in torch.
#pragma once

#include <cstdint>

#ifdef __AVX2__
#include <immintrin.h>
#endif

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

  alignas(32) uint64_t word[4][kLanes];  // each below 2^32: a lane of 64 bits holds the product

  void fill(const uint32_t* c0, const uint32_t* c1, uint32_t c2, uint32_t c3, uint32_t key0, uint32_t key1) {
    for (int lane = 0; lane < kLanes; ++lane) {
      word[0][lane] = c0[lane];
      word[1][lane] = c1[lane];
      word[2][lane] = c2;
      word[3][lane] = c3;
    }
    // Words of so many lanes stay in registers.
    for (int first = 0; first < kLanes; first += kTogether) rounds(first, key0, key1);
  }

 private:
  static constexpr int kTogether = 8;

  void rounds(int first, uint32_t key0, uint32_t key1) {
#ifdef __AVX2__
    constexpr int kVectors = kTogether / 4;
    // What stands above the low 32 bits of a lane is no part of the word: the product does not read it.
    __m256i w[4][kVectors];
    for (int i = 0; i < 4; ++i) {
      for (int v = 0; v < kVectors; ++v) w[i][v] = _mm256_load_si256(vector(i, first + 4 * v));
    }
    for (int round = 0; round < 10; ++round) {
      const __m256i k0 = _mm256_set1_epi64x(key0), k1 = _mm256_set1_epi64x(key1);
      for (int v = 0; v < kVectors; ++v) {
        const __m256i a = _mm256_mul_epu32(w[0][v], _mm256_set1_epi64x(0xD2511F53));
        const __m256i b = _mm256_mul_epu32(w[2][v], _mm256_set1_epi64x(0xCD9E8D57));
        w[0][v] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(b, 32), w[1][v]), k0);
        w[2][v] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(a, 32), w[3][v]), k1);
        w[1][v] = b;
        w[3][v] = a;
      }
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    const __m256i low = _mm256_set1_epi64x(0xFFFFFFFF);
    for (int i = 0; i < 4; ++i) {
      for (int v = 0; v < kVectors; ++v) {
        _mm256_store_si256(vector(i, first + 4 * v), _mm256_and_si256(w[i][v], low));
      }
    }
#else
    for (int lane = first; lane < first + kTogether; ++lane) {
      const Philox one(uint32_t(word[0][lane]), uint32_t(word[1][lane]), uint32_t(word[2][lane]),
                       uint32_t(word[3][lane]), key0, key1);
      for (int i = 0; i < 4; ++i) word[i][lane] = one.word[i];
    }
#endif
  }

#ifdef __AVX2__
  __m256i* vector(int i, int lane) { return reinterpret_cast<__m256i*>(&word[i][lane]); }
#endif
};

}  // namespace hgmm
