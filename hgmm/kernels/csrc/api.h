// The border to Python: plain C functions, called through ctypes. Neither Python's nor torch's headers are used.
#pragma once

#include <cstdint>

#define HGMM_API extern "C" __attribute__((visibility("default")))

namespace hgmm {

// Raised with every change of a signature or of a struct, so that a stale library is noticed.
constexpr int kAbiVersion = 6;

// Modalities of a node's mask, which is a byte. MAX_MODALITIES of hgmm/kernels/_checks.py is compared with it.
constexpr int kMaxModalities = 8;

// What an entry point returns.
enum Status : int { kOk = 0, kUnknownOption = -1, kOutOfMemory = -2 };

// How a tensor stores its numbers. Queries and results are float32 for kBfloat16.
enum Storage : int { kFloat32 = 0, kFloat64 = 1, kBfloat16 = 2 };

}  // namespace hgmm
