// translational_score on the CPU: distances of queries from drawn rows of a table, forward and backward.
//
// A norm's derivative by t is at t - q what its derivative by q is at q - t. So both gradients are the same sum over
// rows, of queries with the draws of each, and of the table with the draws of each entity: every row has one writer.
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
};

constexpr int64_t kDrawsAhead = 8;
constexpr int64_t kDrawsOfChunk = 256;
// Draws whose other ends are still in the cache for the last coordinates.
constexpr int64_t kTile = 16;
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
  const V4<T> four = sums4<T>(sum[0], sum[1], sum[2], sum[3]);
  return Norm::template whole<T>((four[0] + four[1]) + (four[2] + four[3]));
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

// Sizes of a workspace: vectors of a row, and room for the ends that one vector may get from a tile.
struct Plan {
  int64_t vectors, room;
};

// By vector of a row, the other ends of the distances under way.
template <class Other, class T>
class Workspace {
 public:
  explicit Workspace(const Plan& plan)
      : scratch_(Scratch::bytes_of<End<Other, T>>(plan.vectors * plan.room) + Scratch::bytes_of<int64_t>(plan.vectors)),
        room_(plan.room) {
    if (!ok()) return;
    ends_ = scratch_.template take<End<Other, T>>(plan.vectors * plan.room);
    count = scratch_.template take<int64_t>(plan.vectors);
  }
  bool ok() const { return scratch_.ok(); }
  End<Other, T>* ends(int64_t vector) { return ends_ + vector * room_; }
  void add(int64_t vector, const Other* other, T factor) { ends(vector)[count[vector]++] = {other, factor}; }

 private:
  Scratch scratch_;
  const int64_t room_;
  End<Other, T>* ends_ = nullptr;

 public:
  int64_t* count = nullptr;
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
        table_row(int64_t{a.M} * a.D) {}

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
          out[e * a.P + p] = distance<Norm>(q + at_query * a.D, t + at_table * a.D, a.D);
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
        [&](int64_t e) { prefetch_row(entity_of(e), table_row); },
        [&](int64_t e, Workspace<St, T>& own) {
          each_pair(e, [&](int p, int64_t at_query, int64_t at_table) {
            own.add(a.side[e] * int64_t{a.A} + at_query, entity_of(e) + at_table * a.D, factor(e, p));
          });
        });
  }

  bool table_gradients() {
    const ByEntity draws(entity, num_draws, a.N);
    return sum_rows<St, T>(
        {draws.begin.data(), true}, a.N, a.M, table, static_cast<T*>(a.grad_table),
        [&](int64_t i) { prefetch_row(query_of(draws.order[size_t(i)]), query_row); },
        [&](int64_t i, Workspace<T, T>& own) {
          const int64_t e = draws.order[size_t(i)];
          each_pair(e, [&](int p, int64_t at_query, int64_t at_table) {
            own.add(at_table, query_of(e) + at_query * a.D, factor(e, p));
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
    const Plan plan{vectors, kTile * a.P};
    const int64_t F = vectors * a.D;
    prefer_large_pages(out, num_rows * F * int64_t(sizeof(T)));
    const auto part = [&](int64_t row, int64_t first, int64_t last, Room& own, T* sum) {
      for (; first < last; first += kTile) {
        std::fill_n(own.count, vectors, 0);
        for (int64_t i = first; i < std::min(last, first + kTile); ++i) {
          if (i + kTile < num_draws) ahead(i + kTile);
          list(i, own);
        }
        for (int64_t v = 0; v < vectors; ++v) {
          add_slopes<Norm>(rows + row * F + v * a.D, own.ends(v), own.count[v], a.D, sum + v * a.D);
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

  const Args& a;
  const Index entity;
  const T* query;
  const St* table;
  const int64_t num_draws, query_row, table_row;
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
