// What all operators do with rows of vectors: dot products by head, weighted sums, prefetching.
//
// A row holds M x H vectors of D numbers, contiguous. Numbers by edge, modality and head stand in scratch as
// [edge][modality][Hp] with Hp = H rounded up to four: lanes of the padding repeat the last head and are never stored
// to a result.
#pragma once

#include "simd.h"

namespace hgmm {

// Row pointers or node ids, int32 or int64.
struct Index {
  const void* data;
  bool wide;
  int64_t operator[](int64_t i) const {
    return wide ? static_cast<const int64_t*>(data)[i] : static_cast<const int32_t*>(data)[i];
  }
};

// Sizes of a row and of its numbers in scratch.
struct Shape {
  int M, H, D;
  int Hp;     // H rounded up to a multiple of four
  int S;      // M * Hp, numbers of an edge
  int64_t F;  // M * H * D, numbers of a row

  Shape(int M_, int H_, int D_)
      : M(M_), H(H_), D(D_), Hp((H_ + 3) / 4 * 4), S(M_ * Hp), F(int64_t{M_} * H_ * D_) {}
};

// Asks for a row, or for the start of a long one: the processor's own prefetcher, which has more requests in flight
// than a program can have, brings the rest once it has seen the row read in order. The second-level cache is the place,
// since the first-level one is too small for all rows under way.
constexpr int64_t kFetchedBytes = 1024;

// GCC takes a function that only prefetches for one without effect, and drops calls that it has not inlined before.
#define HGMM_PREFETCHES inline __attribute__((always_inline))

template <class S>
HGMM_PREFETCHES void prefetch_row(const S* row, int64_t numbers) {
  const char* p = reinterpret_cast<const char*>(row);
  const int64_t bytes = numbers * int64_t(sizeof(S));
  for (int64_t i = 0; i < kFetchedBytes && i < bytes; i += 64) __builtin_prefetch(p + i, 0, 2);
}

// Start of the vectors of heads h .. h + 3 of modality m; heads past the last stand for the last.
struct HeadOffsets {
  int64_t o[4];
  HeadOffsets(const Shape& shape, int m, int h) {
    for (int i = 0; i < 4; ++i) {
      const int head = h + i < shape.H ? h + i : shape.H - 1;
      o[i] = (int64_t{m} * shape.H + head) * shape.D;
    }
  }
};

// Dot products by modality and head of one shared row with two others: x[mh] = <shared, a>, y[mh] = <shared, b>.
// D8 is D / 8 if that is known when compiled and D a multiple of 8, else 0.
template <int D8, class SS, class SQ, class T>
inline void dots2(const Shape& shape, const SS* shared, const SQ* a, const SQ* b, T* x, T* y) {
  const int chunks = D8 ? D8 : shape.D / 8, rest = D8 ? 0 : shape.D % 8;
  for (int m = 0; m < shape.M; ++m) {
    for (int h = 0; h < shape.H; h += 4) {
      const HeadOffsets at(shape, m, h);
      V8<T> sx[4] = {}, sy[4] = {};
      for (int i = 0; i < 4; ++i) {
        for (int c = 0; c < chunks; ++c) {
          const V8<T> s = load8(shared + at.o[i] + 8 * c);
          sx[i] += s * load8(a + at.o[i] + 8 * c);
          sy[i] += s * load8(b + at.o[i] + 8 * c);
        }
        if (rest) {
          const V8<T> s = load_some(shared + at.o[i] + 8 * chunks, rest);
          sx[i] += s * load_some(a + at.o[i] + 8 * chunks, rest);
          sy[i] += s * load_some(b + at.o[i] + 8 * chunks, rest);
        }
      }
      store4(x + m * shape.Hp + h, sums4<T>(sx[0], sx[1], sx[2], sx[3]));
      store4(y + m * shape.Hp + h, sums4<T>(sy[0], sy[1], sy[2], sy[3]));
    }
  }
}

// Dot products by modality and head of two rows.
template <int D8, class SA, class SB, class T>
inline void dots(const Shape& shape, const SA* a, const SB* b, T* x) {
  const int chunks = D8 ? D8 : shape.D / 8, rest = D8 ? 0 : shape.D % 8;
  for (int m = 0; m < shape.M; ++m) {
    for (int h = 0; h < shape.H; h += 4) {
      const HeadOffsets at(shape, m, h);
      V8<T> s[4] = {};
      for (int i = 0; i < 4; ++i) {
        for (int c = 0; c < chunks; ++c) s[i] += load8(a + at.o[i] + 8 * c) * load8(b + at.o[i] + 8 * c);
        if (rest) s[i] += load_some(a + at.o[i] + 8 * chunks, rest) * load_some(b + at.o[i] + 8 * chunks, rest);
      }
      store4(x + m * shape.Hp + h, sums4<T>(s[0], s[1], s[2], s[3]));
    }
  }
}

// Where the weight of modality m and head h of an edge stands: weight[e * edge + m * modality + h * head].
struct WeightLayout {
  int edge, modality, head;
};

// out[mh] += sum_e weight[e][mh] * rows[offset[e] + mh] for kHeads consecutive mh from `first` on, D = 8 * D8.
// The sums stay in registers, so that an edge costs loads and no stores.
template <int D8, int kHeads, class S, class T>
inline void add_heads(const Shape& shape, int first, const S* rows, const int64_t* offset, int64_t num_edges,
                      const T* weight, WeightLayout layout, T* out) {
  int64_t at[kHeads];
  for (int i = 0; i < kHeads; ++i) {
    at[i] = (first + i) / shape.H * layout.modality + (first + i) % shape.H * layout.head;
  }
  const int64_t base = int64_t{first} * D8 * 8;
  V8<T> sum[kHeads * D8];
  for (int j = 0; j < kHeads * D8; ++j) sum[j] = load8(out + base + 8 * j);
  for (int64_t e = 0; e < num_edges; ++e) {
    const S* row = rows + offset[e] + base;
    const T* w = weight + e * layout.edge;
    for (int i = 0; i < kHeads; ++i) {
      const V8<T> scale = splat8(w[at[i]]);
      for (int c = 0; c < D8; ++c) sum[i * D8 + c] += scale * load8(row + (i * D8 + c) * 8);
    }
  }
  for (int j = 0; j < kHeads * D8; ++j) store8(out + base + 8 * j, sum[j]);
}

template <int D8, class S, class T>
inline void add_rows_blocked(const Shape& shape, const S* rows, const int64_t* offset, int64_t num_edges,
                             const T* weight, WeightLayout layout, T* out) {
  constexpr int kHeads = 8 / D8;  // eight registers of sums
  const int heads = shape.M * shape.H;
  int first = 0;
  for (; first + kHeads <= heads; first += kHeads) {
    add_heads<D8, kHeads>(shape, first, rows, offset, num_edges, weight, layout, out);
  }
  for (; first < heads; ++first) add_heads<D8, 1>(shape, first, rows, offset, num_edges, weight, layout, out);
}

// The same for any D.
template <class S, class T>
inline void add_rows_any(const Shape& shape, const S* rows, const int64_t* offset, int64_t num_edges, const T* weight,
                         WeightLayout layout, T* out) {
  const int chunks = shape.D / 8;
  for (int m = 0; m < shape.M; ++m) {
    for (int h = 0; h < shape.H; ++h) {
      const int64_t base = (int64_t{m} * shape.H + h) * shape.D;
      const T* w = weight + m * layout.modality + h * layout.head;
      for (int c = 0; c < chunks; ++c) {
        V8<T> sum = load8(out + base + 8 * c);
        for (int64_t e = 0; e < num_edges; ++e) {
          sum += splat8(w[e * layout.edge]) * load8(rows + offset[e] + base + 8 * c);
        }
        store8(out + base + 8 * c, sum);
      }
      for (int d = 8 * chunks; d < shape.D; ++d) {
        T sum = out[base + d];
        for (int64_t e = 0; e < num_edges; ++e) sum += w[e * layout.edge] * load1(rows + offset[e] + base + d);
        out[base + d] = sum;
      }
    }
  }
}

// Rows longer than this are worked off in parts, so that a gathered row is still in the cache for its last head.
constexpr int64_t kEdgesInCache = 32;

// out += weighted rows; prefetches ahead from the second part on, the caller has fetched the first.
template <int D8, class S, class T>
inline void add_rows(const Shape& shape, const S* rows, const int64_t* offset, int64_t num_edges, const T* weight,
                     WeightLayout layout, T* out) {
  for (int64_t first = 0; first < num_edges; first += kEdgesInCache) {
    const int64_t last = first + kEdgesInCache < num_edges ? first + kEdgesInCache : num_edges;
    const int64_t ahead = last + kEdgesInCache < num_edges ? last + kEdgesInCache : num_edges;
    for (int64_t e = last; e < ahead; ++e) prefetch_row(rows + offset[e], shape.F);
    if constexpr (D8 > 0) {
      add_rows_blocked<D8>(shape, rows, offset + first, last - first, weight + first * layout.edge, layout, out);
    } else {
      add_rows_any(shape, rows, offset + first, last - first, weight + first * layout.edge, layout, out);
    }
  }
}

template <class T>
inline void clear(T* x, int64_t count) {
  std::memset(x, 0, size_t(count) * sizeof(T));
}

template <class T>
inline void add(T* x, const T* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] += y[i];
}

// x[e] *= scale for every edge; `lanes` numbers an edge, a multiple of four.
template <class T>
inline void multiply(T* x, int64_t edges, const T* scale, int lanes) {
  for (int64_t e = 0; e < edges; ++e) {
    for (int i = 0; i < lanes; i += 4) store4(x + e * lanes + i, load4(x + e * lanes + i) * load4(scale + i));
  }
}

// 1 / sum, 0 for an empty sum.
template <class T>
inline void invert(const T* sum, T* scale, int count) {
  for (int i = 0; i < count; ++i) scale[i] = sum[i] == 0 ? T(0) : T(1) / sum[i];
}

// Multiplies the vectors of a row by scale[m * modality + h].
template <class T>
inline void scale_row(const Shape& shape, T* row, const T* scale, int modality) {
  for (int m = 0; m < shape.M; ++m) {
    for (int h = 0; h < shape.H; ++h) {
      const T factor = scale[m * modality + h];
      T* x = row + (int64_t{m} * shape.H + h) * shape.D;
      for (int d = 0; d < shape.D; ++d) x[d] *= factor;
    }
  }
}

// Clears the gradients of what source j lacks: all of its weights are 0, but 0 times an infinite gradient or NaN is
// not.
template <class T>
inline void forget_absent(const Shape& shape, const uint8_t* present, int64_t j, T* row) {
  const int64_t numbers = int64_t{shape.H} * shape.D;
  for (int m = 0; m < shape.M && present; ++m) {
    if (!present[j * shape.M + m]) clear(row + m * numbers, numbers);
  }
}

// Between H numbers a modality, as tensors have them, and Hp, as scratch has them.
template <class T>
inline void store_heads(const Shape& shape, const T* padded, int rows, T* packed) {
  for (int m = 0; m < rows; ++m) std::memcpy(packed + m * shape.H, padded + m * shape.Hp, size_t(shape.H) * sizeof(T));
}
template <class T>
inline void load_heads(const Shape& shape, const T* packed, int rows, T* padded) {
  for (int m = 0; m < rows; ++m) std::memcpy(padded + m * shape.Hp, packed + m * shape.H, size_t(shape.H) * sizeof(T));
}

// The modalities of node j, one bit each; all of them without a mask.
inline uint8_t modality_bits(const uint8_t* present, int64_t j, int M) {
  if (!present) return uint8_t((1 << M) - 1);
  int bits = 0;
  for (int m = 0; m < M; ++m) bits |= (present[j * M + m] != 0) << m;
  return uint8_t(bits);
}

}  // namespace hgmm
