// Softmaxes over the edges of a row, lane by lane, in one go or piece by piece.
#pragma once

#include <limits>

#include "simd.h"

namespace hgmm {

template <class T>
constexpr T kMinusInfinity = -std::numeric_limits<T>::infinity();

// The maximum of a softmax's logits, 0 where there are none, so that -inf minus it stays -inf.
template <class T>
inline V4<T> finite_or_zero(V4<T> x) {
  return x == splat4(kMinusInfinity<T>) ? splat4(T(0)) : x;
}

inline V4<float> vlog4(V4<float> x) {
  const V8<float> y = vlog(V8<float>{x[0], x[1], x[2], x[3], 1, 1, 1, 1});
  return V4<float>{y[0], y[1], y[2], y[3]};
}
inline V4<double> vlog4(V4<double> x) {
  return V4<double>{std::log(x[0]), std::log(x[1]), std::log(x[2]), std::log(x[3])};
}
inline V4<float> vexp4(V4<float> x) {
  const V8<float> y = vexp(V8<float>{x[0], x[1], x[2], x[3], 0, 0, 0, 0});
  return V4<float>{y[0], y[1], y[2], y[3]};
}
inline V4<double> vexp4(V4<double> x) {
  return V4<double>{std::exp(x[0]), std::exp(x[1]), std::exp(x[2]), std::exp(x[3])};
}

// Running maximum and sum of exponentials by lane; `count` lanes, a multiple of four.
template <class T>
struct Softmax {
  static void clear(T* max, T* sum, int count) {
    for (int i = 0; i < count; ++i) {
      max[i] = kMinusInfinity<T>;
      sum[i] = 0;
    }
  }

  // Adds (other_max, other_sum) to (max, sum); scale gets exp(old max - new max), other_scale likewise.
  static void merge(T* max, T* sum, const T* other_max, const T* other_sum, T* scale, T* other_scale, int count) {
    for (int i = 0; i < count; i += 4) {
      const V4<T> a = load4(max + i), b = load4(other_max + i), top = vmax(a, b), zero = finite_or_zero<T>(top);
      const V4<T> sa = vexp4(a - zero), sb = vexp4(b - zero);
      store4(max + i, top);
      store4(sum + i, load4(sum + i) * sa + load4(other_sum + i) * sb);
      if (scale) store4(scale + i, sa);
      if (other_scale) store4(other_scale + i, sb);
    }
  }

  // Logarithm of the whole sum, 0 for an empty softmax.
  static void finish(const T* max, const T* sum, T* out, int count) {
    for (int i = 0; i < count; i += 4) {
      const V4<T> s = load4(sum + i);
      const V4<T> safe = s == 0 ? splat4(T(1)) : s;
      store4(out + i, finite_or_zero<T>(load4(max + i)) + vlog4(safe));
    }
  }
};

}  // namespace hgmm
