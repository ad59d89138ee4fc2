// What this library is and what the processor can do.
#include "api.h"

HGMM_API int hgmm_abi_version() { return hgmm::kAbiVersion; }

HGMM_API int hgmm_max_modalities() { return hgmm::kMaxModalities; }

HGMM_API int hgmm_has_openmp() {
#ifdef _OPENMP
  return 1;
#else
  return 0;
#endif
}

HGMM_API const char* hgmm_isa() {
#if defined(__AVX2__) && defined(__FMA__)
  return "avx2";
#else
  return "portable";
#endif
}

// Whether the library compiled for AVX2 and FMA can run here.
HGMM_API int hgmm_cpu_supports_avx2() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return 0;
#endif
}
