// translational_score on the CPU: distances of queries from drawn rows of a table, forward and backward.
//
// A norm's derivative by t is at t - q what its derivative by q is at q - t. So both gradients are the same sum over
// rows, of queries with the draws of each, and of the table with the draws of each entity: every row has one writer.
//
// The slopes of norm 1 are signs. Where the forward pass has kept them, a bit each, the backward pass reads these bits
// and no vector: 1/32 of the bytes.
#include <limits>
#include <new>
#include <type_traits>

#include "schedule.h"

namespace hgmm {
namespace {

// Mirrored by hgmm/kernels/translational_score/cpu.py.
struct Args {
  int64_t B, K, N;
  int32_t S, A, M, D, P, norm, wide_index, storage, threads, need_query, need_table, padding;
  const void *query, *table, *entity;
  const int8_t* side;
  const int64_t* pairs;  // (S, P, 2)
  void* out;
  const void* grad_out;
  void *grad_query, *grad_table;
  uint32_t* signs;  // (B, K, P) of `Signs` and then of bytes, or null
};

constexpr int64_t kDrawsAhead = 8;
constexpr int64_t kDrawsOfChunk = 256;
// Draws whose other ends are still in the cache for the last coordinates.
constexpr int64_t kTile = 16;
constexpr int64_t kTileOfSigns = 64;
constexpr int64_t kLongRow = 4096;

template <class T>
inline V8<T> vsqrt(V8<T> x) {
  for (int i = 0; i < 8; ++i) x[i] = std::sqrt(x[i]);
  return x;
}

#if defined(__AVX2__) && defined(__FMA__)
template <>
inline V8<float> vsqrt<float>(V8<float> x) {
  return reinterpret_cast<V8<float>>(_mm256_sqrt_ps(reinterpret_cast<__m256>(x)));
}
#endif

// A norm is a sum of terms over coordinates and what becomes of the sum; its derivative is a slope by coordinate times
// a factor of the whole. x are differences; y, with two parts, those of the imaginary parts.
struct Absolute {
  static constexpr int kParts = 1;
  static constexpr bool kSigns = true;
  template <class T>
  static V8<T> term(V8<T> x, V8<T>) { return vmax(x, -x); }
  template <class T>
  static T whole(T sum) { return sum; }
  template <class T>
  static T factor(T grad, T) { return grad; }
  template <class T>
  static void slope(V8<T>& x, V8<T>&) {
    const V8<T> zero{}, one = splat8(T(1));
    x = (x > zero ? one : zero) - (x < zero ? one : zero);
  }
};

struct Euclidean {
  static constexpr int kParts = 1;
  static constexpr bool kSigns = false;
  template <class T>
  static V8<T> term(V8<T> x, V8<T>) { return x * x; }
  template <class T>
  static T whole(T sum) { return std::sqrt(sum); }
  template <class T>
  static T factor(T grad, T distance) { return distance == 0 ? T(0) : grad / distance; }
  template <class T>
  static void slope(V8<T>&, V8<T>&) {}
};

struct Moduli {
  static constexpr int kParts = 2;
  static constexpr bool kSigns = false;
  template <class T>
  static V8<T> term(V8<T> x, V8<T> y) { return vsqrt<T>(x * x + y * y); }
  template <class T>
  static T whole(T sum) { return sum; }
  template <class T>
  static T factor(T grad, T) { return grad; }
  template <class T>
  static void slope(V8<T>& x, V8<T>& y) {
    const V8<T> zero{}, one = splat8(T(1)), modulus = term<T>(x, y);
    const V8<T> inverse = modulus == zero ? zero : one / modulus;
    x *= inverse;
    y *= inverse;
  }
};

// How eight coordinates are read, or the last few with zeros behind.
struct Whole {
  template <class S>
  auto operator()(const S* p) const { return load8(p); }
};
struct Some {
  int count;
  template <class S>
  auto operator()(const S* p) const { return load_some(p, count); }
};

template <class T>
inline T sum_of_lanes(const V8<T>* sum) {
  const V4<T> four = sums4<T>(sum[0], sum[1], sum[2], sum[3]);
  return (four[0] + four[1]) + (four[2] + four[3]);
}

template <class Norm, class St, class T>
inline T distance(const T* q, const St* t, int D) {
  const int width = D / Norm::kParts;
  const auto term = [&](int d, auto load) {
    const V8<T> x = load(q + d) - load(t + d);
    const V8<T> y = Norm::kParts == 2 ? load(q + width + d) - load(t + width + d) : x;
    return Norm::template term<T>(x, y);
  };
  V8<T> sum[4] = {};
  int d = 0;
  for (; d + 32 <= width; d += 32) {
    for (int i = 0; i < 4; ++i) sum[i] += term(d + 8 * i, Whole{});
  }
  for (; d + 8 <= width; d += 8) sum[0] += term(d, Whole{});
  if (d < width) sum[1] += term(d, Some{width - d});
  return Norm::template whole<T>(sum_of_lanes<T>(sum));
}

// What is kept of a distance for the norm 1: by coordinate a bit that is set where q lies below t; and whether some
// difference is 0 or NaN, so that its slope is no sign.
struct Signs {
  uint32_t* bits;
  uint8_t* incomplete;
};

// As `distance` of the norm 1.
template <class St, class T>
inline T distance_and_signs(const T* q, const St* t, int D, Signs signs) {
  V8<T> sum[4] = {}, least = splat8(std::numeric_limits<T>::infinity());
  int d = 0;
  for (; d + 32 <= D; d += 32) {
    V8<T> x[4];
    for (int i = 0; i < 4; ++i) {
      x[i] = load8(q + d + 8 * i) - load8(t + d + 8 * i);
      const V8<T> size = vmax(x[i], -x[i]);
      sum[i] += size;
      least = vmin(least, size);
    }
    signs.bits[d / 32] = negative32<T>(x);
  }
  T total = sum_of_lanes<T>(sum);
  bool zero = any_is_zero<T>(least);
  if (d < D) {
    uint32_t bits = 0;
    for (int i = 0; d + i < D; ++i) {
      const T x = q[d + i] - load1(t + d + i);
      total += std::abs(x);
      bits |= uint32_t{x < 0} << i;
      zero |= x == 0;
    }
    signs.bits[d / 32] = bits;
  }
  *signs.incomplete = zero || std::isnan(total);
  return total;
}

// The other end of a distance and the factor of its slope.
template <class Other, class T>
struct End {
  const Other* vector;
  T factor;
};

// out += sum of factor * derivative of the norm of own - vector by own, at kVectors * 8 coordinates from d on, of each
// part. The sums stay in registers.
template <class Norm, int kVectors, class Load, class Own, class Other, class T>
inline void add_slopes_at(const Own* own, const End<Other, T>* ends, int64_t count, int d, int width, Load load,
                          T* out) {
  V8<T> from[Norm::kParts][kVectors], sum[Norm::kParts][kVectors] = {};
  for (int part = 0; part < Norm::kParts; ++part) {
    for (int v = 0; v < kVectors; ++v) from[part][v] = load(own + d + part * width + 8 * v);
  }
  for (int64_t e = 0; e < count; ++e) {
    const V8<T> factor = splat8(ends[e].factor);
    const Other* to = ends[e].vector + d;
    for (int v = 0; v < kVectors; ++v) {
      V8<T> x = from[0][v] - load(to + 8 * v);
      V8<T> y = Norm::kParts == 2 ? from[Norm::kParts - 1][v] - load(to + width + 8 * v) : x;
      Norm::template slope<T>(x, y);
      sum[0][v] += factor * x;
      if (Norm::kParts == 2) sum[Norm::kParts - 1][v] += factor * y;
    }
  }
  for (int part = 0; part < Norm::kParts; ++part) {
    for (int v = 0; v < kVectors; ++v) {
      T* at = out + d + part * width + 8 * v;
      if constexpr (std::is_same_v<Load, Whole>) {
        store8(at, load8(at) + sum[part][v]);
      } else {
        for (int i = 0; i < load.count; ++i) at[i] += sum[part][v][i];
      }
    }
  }
}

template <class Norm, class Own, class Other, class T>
inline void add_slopes(const Own* own, const End<Other, T>* ends, int64_t count, int D, T* out) {
  constexpr int kVectors = 4 / Norm::kParts;
  const int width = D / Norm::kParts;
  int d = 0;
  for (; d + 8 * kVectors <= width; d += 8 * kVectors) {
    add_slopes_at<Norm, kVectors>(own, ends, count, d, width, Whole{}, out);
  }
  for (; d + 8 <= width; d += 8) add_slopes_at<Norm, 1>(own, ends, count, d, width, Whole{}, out);
  if (d < width) add_slopes_at<Norm, 1>(own, ends, count, d, width, Some{width - d}, out);
}

// The bits of eight coordinates after another, in lanes.
template <class T>
struct Bits {
  using Lane = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  alignas(64) Lane of[32];
  constexpr Bits() : of() {
    for (int i = 0; i < 32; ++i) of[i] = Lane{1} << i;
  }
};
template <class T>
constexpr Bits<T> kBits;

// As `add_slopes` of the norm 1 where own lies above the other end, and minus that where its bit is set; at
// kVectors * 8 coordinates from d on, whose bits are in one word.
template <int kVectors, class T>
inline void add_signs_at(const End<uint32_t, T>* ends, int64_t count, int d, T* out) {
  I8<T> bit[kVectors];
  for (int v = 0; v < kVectors; ++v) bit[v] = *reinterpret_cast<const I8<T>*>(kBits<T>.of + 8 * v);
  const I8<T> minus = reinterpret_cast<I8<T>>(splat8(T(-0.0)));
  V8<T> sum[kVectors] = {};
  for (int64_t e = 0; e < count; ++e) {
    const I8<T> bits = I8<T>{} + int32_t(ends[e].vector[d / 32] >> d % 32);
    const I8<T> factor = reinterpret_cast<I8<T>>(splat8(ends[e].factor));
    for (int v = 0; v < kVectors; ++v) {
      sum[v] += reinterpret_cast<V8<T>>(factor ^ (((bits & bit[v]) == bit[v]) & minus));
    }
  }
  for (int v = 0; v < kVectors; ++v) store8(out + d + 8 * v, load8(out + d + 8 * v) + sum[v]);
}

template <class T>
inline void add_signs(const End<uint32_t, T>* ends, int64_t count, int D, T* out) {
  int d = 0;
  for (; d + 32 <= D; d += 32) add_signs_at<4>(ends, count, d, out);
  for (; d + 8 <= D; d += 8) add_signs_at<1>(ends, count, d, out);
  for (; d < D; ++d) {
    T sum = 0;
    for (int64_t e = 0; e < count; ++e) {
      sum += (ends[e].vector[d / 32] >> d % 32 & 1) ? -ends[e].factor : ends[e].factor;
    }
    out[d] += sum;
  }
}

// Sizes of a workspace: vectors of a row, and room for the ends that one vector may get from a tile.
struct Plan {
  int64_t vectors, room;
};

// By vector of a row, some ends of the distances under way.
template <class Other, class T>
class Ends {
 public:
  Ends(Scratch& scratch, const Plan& plan) : room_(plan.room) {
    if (!scratch.ok()) return;
    ends_ = scratch.take<End<Other, T>>(plan.vectors * plan.room);
    count_ = scratch.take<int64_t>(plan.vectors);
  }
  static size_t bytes(const Plan& plan) {
    return Scratch::bytes_of<End<Other, T>>(plan.vectors * plan.room) + Scratch::bytes_of<int64_t>(plan.vectors);
  }
  void clear(int64_t vectors) { std::fill_n(count_, vectors, 0); }
  void add(int64_t vector, const Other* other, T factor) { ends_[vector * room_ + count_[vector]++] = {other, factor}; }
  const End<Other, T>* of(int64_t vector) const { return ends_ + vector * room_; }
  int64_t count(int64_t vector) const { return count_[vector]; }

 private:
  const int64_t room_;
  End<Other, T>* ends_ = nullptr;
  int64_t* count_ = nullptr;
};

// The other ends of the distances under way: vectors, or the bits that are kept of them.
template <class Other, class T>
class Workspace {
 public:
  explicit Workspace(const Plan& plan)
      : scratch_(Ends<Other, T>::bytes(plan) + Ends<uint32_t, T>::bytes(plan)), vectors(scratch_, plan),
        signs(scratch_, plan) {}
  bool ok() const { return scratch_.ok(); }

 private:
  Scratch scratch_;

 public:
  Ends<Other, T> vectors;
  Ends<uint32_t, T> signs;
};

// Draws sorted by entity, those of an entity in their order: entity j has order[begin[j]] .. order[begin[j + 1] - 1].
struct ByEntity {
  std::vector<int64_t> begin, order;
  ByEntity(Index entity, int64_t num_draws, int64_t num_entities)
      : begin(size_t(num_entities) + 2, 0), order(size_t(num_draws)) {
    // Counted two places ahead, so that placing leaves the starts where they belong.
    for (int64_t e = 0; e < num_draws; ++e) ++begin[size_t(entity[e]) + 2];
    for (size_t j = 2; j < begin.size(); ++j) begin[j] += begin[j - 1];
    for (int64_t e = 0; e < num_draws; ++e) order[size_t(begin[size_t(entity[e]) + 1]++)] = e;
  }
};

template <class St, class Norm>
class Scores {
  using T = typename Accumulator<St>::type;

 public:
  explicit Scores(const Args& args)
      : a(args), entity{a.entity, a.wide_index != 0}, query(static_cast<const T*>(a.query)),
        table(static_cast<const St*>(a.table)), num_draws(a.B * a.K), query_row(int64_t{a.A} * a.D),
        table_row(int64_t{a.M} * a.D), sign_words((a.D + 31) / 32),
        tile(a.signs ? kTileOfSigns : kTile) {}

  bool forward() {
    T* out = static_cast<T*>(a.out);
    const int64_t chunks = (num_draws + kDrawsOfChunk - 1) / kDrawsOfChunk;
    const int threads = int(std::clamp<int64_t>(chunks, 1, a.threads));
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t c = 0; c < chunks; ++c) {
      const int64_t last = std::min(num_draws, (c + 1) * kDrawsOfChunk);
      for (int64_t e = c * kDrawsOfChunk; e < last; ++e) {
        if (e + kDrawsAhead < num_draws) prefetch_row(entity_of(e + kDrawsAhead), table_row);
        const T* q = query_of(e);
        const St* t = entity_of(e);
        each_pair(e, [&](int p, int64_t at_query, int64_t at_table) {
          const T* from = q + at_query * a.D;
          const St* to = t + at_table * a.D;
          if (Norm::kSigns && a.signs) {
            out[e * a.P + p] = distance_and_signs(from, to, a.D, Signs{bits_of(e, p), incomplete_of(e, p)});
          } else {
            out[e * a.P + p] = distance<Norm>(from, to, a.D);
          }
        });
      }
    }
    return true;
  }

  bool backward() {
    return (!a.need_query || query_gradients()) && (!a.need_table || table_gradients());
  }

 private:
  bool query_gradients() {
    std::vector<int64_t> begin(size_t(a.B) + 1);
    for (int64_t b = 0; b <= a.B; ++b) begin[size_t(b)] = b * a.K;
    return sum_rows<T, St>(
        {begin.data(), true}, a.B, int64_t{a.S} * a.A, query, static_cast<T*>(a.grad_query),
        [&](int64_t e) {
          if (!a.signs) prefetch_row(entity_of(e), table_row);
        },
        [&](int64_t e, Workspace<St, T>& own) {
          each_pair(e, [&](int p, int64_t at_query, int64_t at_table) {
            const int64_t vector = a.side[e] * int64_t{a.A} + at_query;
            if (has_signs(e, p)) {
              own.signs.add(vector, bits_of(e, p), factor(e, p));
            } else {
              own.vectors.add(vector, entity_of(e) + at_table * a.D, factor(e, p));
            }
          });
        });
  }

  bool table_gradients() {
    const ByEntity draws(entity, num_draws, a.N);
    return sum_rows<St, T>(
        {draws.begin.data(), true}, a.N, a.M, table, static_cast<T*>(a.grad_table),
        [&](int64_t i) {
          const int64_t e = draws.order[size_t(i)];
          if (a.signs) {
            prefetch_row(bits_of(e, 0), a.P * sign_words);
          } else {
            prefetch_row(query_of(e), query_row);
          }
        },
        [&](int64_t i, Workspace<T, T>& own) {
          const int64_t e = draws.order[size_t(i)];
          each_pair(e, [&](int p, int64_t at_query, int64_t at_table) {
            if (has_signs(e, p)) {
              own.signs.add(at_table, bits_of(e, p), -factor(e, p));
            } else {
              own.vectors.add(at_table, query_of(e) + at_query * a.D, factor(e, p));
            }
          });
        });
  }

  // Calls visit(p, a, m) for the pairs of draw e.
  template <class Visit>
  void each_pair(int64_t e, Visit visit) const {
    const int64_t* pair = a.pairs + int64_t{a.side[e]} * a.P * 2;
    for (int p = 0; p < a.P; ++p) visit(p, pair[2 * p], pair[2 * p + 1]);
  }

  // Forms the gradients of rows of `vectors` vectors each. list(item, workspace) notes an item's distances and
  // ahead(item) fetches what it will read; the items of row i are begin[i] .. begin[i + 1] - 1.
  template <class Own, class Other, class Ahead, class List>
  bool sum_rows(Index begin, int64_t num_rows, int64_t vectors, const Own* rows, T* out, Ahead ahead, List list) {
    using Room = Workspace<Other, T>;
    const Plan plan{vectors, tile * a.P};
    const int64_t F = vectors * a.D;
    prefer_large_pages(out, num_rows * F * int64_t(sizeof(T)));
    const auto part = [&](int64_t row, int64_t first, int64_t last, Room& own, T* sum) {
      for (; first < last; first += tile) {
        own.vectors.clear(vectors);
        own.signs.clear(vectors);
        for (int64_t i = first; i < std::min(last, first + tile); ++i) {
          if (i + kTile < num_draws) ahead(i + kTile);
          list(i, own);
        }
        for (int64_t v = 0; v < vectors; ++v) {
          T* total = sum + v * a.D;
          if (own.signs.count(v)) add_signs(own.signs.of(v), own.signs.count(v), a.D, total);
          if (own.vectors.count(v)) {
            add_slopes<Norm>(rows + row * F + v * a.D, own.vectors.of(v), own.vectors.count(v), a.D, total);
          }
        }
      }
    };
    const bool ok = for_rows<Room>(begin, num_rows, a.threads, plan, [&](int64_t first, int64_t last, Room& own) {
      for (int64_t i = first; i < last; ++i) {
        if (begin[i + 1] - begin[i] > kLongRow) continue;
        clear(out + i * F, F);
        part(i, begin[i], begin[i + 1], own, out + i * F);
      }
    });
    if (!ok) return false;
    for (int64_t i : long_rows(begin, num_rows, kLongRow)) {
      const Segments segments(begin[i], begin[i + 1], kLongRow);
      std::vector<std::vector<T>> parts(size_t(segments.count), std::vector<T>(size_t(F), T(0)));
      const bool done = for_segments<Room>(segments, a.threads, plan, [&](int64_t s, Room& own) {
        part(i, segments.first(s), segments.last(s), own, parts[size_t(s)].data());
      });
      if (!done) return false;
      clear(out + i * F, F);
      for (const std::vector<T>& sum : parts) add(out + i * F, sum.data(), F);
    }
    return true;
  }

  T factor(int64_t e, int p) const {
    const int64_t at = e * a.P + p;
    return Norm::template factor<T>(static_cast<const T*>(a.grad_out)[at], static_cast<const T*>(a.out)[at]);
  }

  const T* query_of(int64_t e) const { return query + (e / a.K * a.S + a.side[e]) * query_row; }
  const St* entity_of(int64_t e) const { return table + entity[e] * table_row; }
  uint32_t* bits_of(int64_t e, int p) const { return a.signs + (e * a.P + p) * sign_words; }
  uint8_t* incomplete_of(int64_t e, int p) const {
    return reinterpret_cast<uint8_t*>(a.signs + num_draws * a.P * sign_words) + e * a.P + p;
  }
  bool has_signs(int64_t e, int p) const { return Norm::kSigns && a.signs && !*incomplete_of(e, p); }

  const Args& a;
  const Index entity;
  const T* query;
  const St* table;
  const int64_t num_draws, query_row, table_row, sign_words, tile;
};

template <class St, class Norm>
int run_norm(const Args& a, bool backward) {
  Scores<St, Norm> op(a);
  return (backward ? op.backward() : op.forward()) ? kOk : kOutOfMemory;
}

template <class St>
int run_storage(const Args& a, bool backward) {
  switch (a.norm) {
    case 0: return run_norm<St, Absolute>(a, backward);
    case 1: return run_norm<St, Euclidean>(a, backward);
    case 2: return run_norm<St, Moduli>(a, backward);
    default: return kUnknownOption;
  }
}

int run(const Args& a, bool backward) {
  try {
    switch (a.storage) {
      case kFloat32: return run_storage<float>(a, backward);
      case kFloat64: return run_storage<double>(a, backward);
      case kBfloat16: return run_storage<bfloat16>(a, backward);
      default: return kUnknownOption;
    }
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
}

}  // namespace
}  // namespace hgmm

HGMM_API int hgmm_translational_score_forward(const hgmm::Args* args) { return hgmm::run(*args, false); }
HGMM_API int hgmm_translational_score_backward(const hgmm::Args* args) { return hgmm::run(*args, true); }
