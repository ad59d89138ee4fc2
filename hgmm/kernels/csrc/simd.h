// Short vectors in the compilers' own extension (GCC and Clang): one source for AVX2, SSE2 and NEON.
//
// V4 and V8 hold four and eight numbers. Where the target has no register of that width the compiler splits them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#endif

namespace hgmm {

template <class T>
struct Lanes;

template <>
struct Lanes<float> {
  typedef float V4 __attribute__((vector_size(16)));
  typedef float V8 __attribute__((vector_size(32)));
  typedef float Memory4 __attribute__((vector_size(16), aligned(4)));
  typedef float Memory8 __attribute__((vector_size(32), aligned(4)));
  typedef int32_t I8 __attribute__((vector_size(32)));
};

template <>
struct Lanes<double> {
  typedef double V4 __attribute__((vector_size(32)));
  typedef double V8 __attribute__((vector_size(64)));
  typedef double Memory4 __attribute__((vector_size(32), aligned(8)));
  typedef double Memory8 __attribute__((vector_size(64), aligned(8)));
  typedef int64_t I8 __attribute__((vector_size(64)));
};

template <class T>
using V4 = typename Lanes<T>::V4;
template <class T>
using V8 = typename Lanes<T>::V8;
// Integers as wide as a T.
template <class T>
using I8 = typename Lanes<T>::I8;

// Numbers stored in the upper half of a float32.
struct bfloat16 {
  uint16_t bits;
};

// What sums of a stored type are formed in.
template <class S>
struct Accumulator {
  using type = S;
};
template <>
struct Accumulator<bfloat16> {
  using type = float;
};

// Through types of the element's alignment and alias class: memcpy would make the compiler read sizes and pointers anew
// after every store.
template <class T>
inline V4<T> load4(const T* p) {
  return *reinterpret_cast<const typename Lanes<T>::Memory4*>(p);
}

template <class T>
inline void store4(T* p, V4<T> x) {
  *reinterpret_cast<typename Lanes<T>::Memory4*>(p) = x;
}

template <class T>
inline V4<T> splat4(T x) {
  return V4<T>{x, x, x, x};
}

inline V8<float> load8(const float* p) { return *reinterpret_cast<const Lanes<float>::Memory8*>(p); }
inline V8<double> load8(const double* p) { return *reinterpret_cast<const Lanes<double>::Memory8*>(p); }

inline V8<float> load8(const bfloat16* p) {
#if defined(__AVX2__) && defined(__FMA__)
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return reinterpret_cast<V8<float>>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
#else
  V8<float> x;
  uint32_t wide[8];
  for (int i = 0; i < 8; ++i) wide[i] = uint32_t{p[i].bits} << 16;
  std::memcpy(&x, wide, sizeof x);
  return x;
#endif
}

template <class T>
inline void store8(T* p, V8<T> x) {
  *reinterpret_cast<typename Lanes<T>::Memory8*>(p) = x;
}

template <class T>
inline V8<T> splat8(T x) {
  return V8<T>{x, x, x, x, x, x, x, x};
}

inline float load1(const float* p) { return *p; }
inline double load1(const double* p) { return *p; }
inline float load1(const bfloat16* p) {
  const uint32_t wide = uint32_t{p->bits} << 16;
  float x;
  std::memcpy(&x, &wide, sizeof x);
  return x;
}

// The first `count` < 8 numbers, zeros behind them; never reads past them.
template <class S>
inline V8<typename Accumulator<S>::type> load_some(const S* p, int count) {
  using T = typename Accumulator<S>::type;
  T x[8] = {};
  for (int i = 0; i < count; ++i) x[i] = load1(p + i);
  return load8(x);
}

template <class V>
inline V vmax(V a, V b) {
  return a > b ? a : b;
}

template <class V>
inline V vabs(V a) {
  return a < 0 ? -a : a;
}

template <class V>
inline V vmin(V a, V b) {
  return a < b ? a : b;
}

// Whether any of the eight is 0.
template <class T>
inline bool any_is_zero(V8<T> x) {
  bool found = false;
  for (int i = 0; i < 8; ++i) found |= x[i] == 0;
  return found;
}

// A bit for each of 32 numbers, the first lowest: whether it is negative.
template <class T>
inline uint32_t negative32(const V8<T>* x) {
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= uint32_t{x[i / 8][i % 8] < 0} << i;
  return bits;
}

// Sums of the lanes of a, b, c and d.
template <class T>
inline V4<T> sums4(V8<T> a, V8<T> b, V8<T> c, V8<T> d) {
  V4<T> out{};
  for (int i = 0; i < 8; ++i) out += V4<T>{a[i], b[i], c[i], d[i]};
  return out;
}

#if defined(__AVX2__) && defined(__FMA__)
template <>
inline V4<float> sums4<float>(V8<float> a, V8<float> b, V8<float> c, V8<float> d) {
  const __m256 abcd = _mm256_hadd_ps(_mm256_hadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)),
                                     _mm256_hadd_ps(reinterpret_cast<__m256>(c), reinterpret_cast<__m256>(d)));
  return reinterpret_cast<V4<float>>(_mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1)));
}

template <>
inline V8<float> vmin<V8<float>>(V8<float> a, V8<float> b) {
  return reinterpret_cast<V8<float>>(_mm256_min_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
}

template <>
inline bool any_is_zero<float>(V8<float> x) {
  return _mm256_movemask_ps(_mm256_cmp_ps(reinterpret_cast<__m256>(x), _mm256_setzero_ps(), _CMP_EQ_OQ)) != 0;
}

template <>
inline uint32_t negative32<float>(const V8<float>* x) {
  const __m256i low = _mm256_packs_epi32(reinterpret_cast<__m256i>(x[0]), reinterpret_cast<__m256i>(x[1]));
  const __m256i high = _mm256_packs_epi32(reinterpret_cast<__m256i>(x[2]), reinterpret_cast<__m256i>(x[3]));
  // Packing works within the halves of a register, so groups of four are out of order.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  return uint32_t(_mm256_movemask_epi8(_mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order)));
}

template <>
inline V8<float> vmax<V8<float>>(V8<float> a, V8<float> b) {
  return reinterpret_cast<V8<float>>(_mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
}

template <>
inline V4<float> vmax<V4<float>>(V4<float> a, V4<float> b) {
  return reinterpret_cast<V4<float>>(_mm_max_ps(reinterpret_cast<__m128>(a), reinterpret_cast<__m128>(b)));
}
#endif

// e^x for x <= 88, relative error 2e-7; 0 below -87.3, where the result would be subnormal.
inline V8<float> vexp(V8<float> x) {
  const V8<float> shift = splat8(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const V8<float> biased = x * 1.44269504f + shift;
  const V8<float> n = biased - shift;
  const V8<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  V8<float> p = splat8(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  using I8 = Lanes<float>::I8;
  const I8 exponent = (reinterpret_cast<I8>(biased) - reinterpret_cast<I8>(shift) + 127) << 23;
  return x < -87.3f ? splat8(0.0f) : p * reinterpret_cast<V8<float>>(exponent);
}

inline V8<double> vexp(V8<double> x) {
  V8<double> y;
  for (int i = 0; i < 8; ++i) y[i] = std::exp(x[i]);
  return y;
}

// Natural logarithm of positive normal numbers, relative error 1e-7; NaN of NaN.
inline V8<float> vlog(V8<float> x) {
  using I8 = Lanes<float>::I8;
  // Mantissas from sqrt(1/2) to sqrt(2), so that numbers next to 1 keep their digits.
  const I8 bits = reinterpret_cast<I8>(x);
  const I8 exponent = (bits - 0x3f3504f3) >> 23;
  const V8<float> m = reinterpret_cast<V8<float>>(bits - (exponent << 23)) - 1.0f;
  const V8<float> n = __builtin_convertvector(exponent, V8<float>);
  V8<float> p = splat8(7.0376836292e-2f);
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const V8<float> m2 = m * m;
  const V8<float> y = n * 0.693359375f + (m + (p * m * m2 - n * 2.12194440e-4f - 0.5f * m2));
  return x == x ? y : x;
}

inline V8<double> vlog(V8<double> x) {
  V8<double> y;
  for (int i = 0; i < 8; ++i) y[i] = std::log(x[i]);
  return y;
}

// In place over an array whose storage is a multiple of eight numbers.
template <class T>
inline void exp_all(T* x, int64_t count) {
  for (int64_t i = 0; i < count; i += 8) store8(x + i, vexp(load8(x + i)));
}

template <class T>
inline void log_all(T* x, int64_t count) {
  for (int64_t i = 0; i < count; i += 8) store8(x + i, vlog(load8(x + i)));
}

}  // namespace hgmm
