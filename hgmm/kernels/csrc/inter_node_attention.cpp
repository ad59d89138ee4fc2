// inter_node_attention on the CPU: forward, backward to destinations, backward to sources.
//
// A row of up to `limit` edges is one tile. A longer one is cut into segments, each with its own softmax, which are
// combined in order. Nothing is kept by edge.
#include <new>
#include <type_traits>

#include "philox.h"
#include "schedule.h"
#include "softmax.h"

namespace hgmm {
namespace {

// Mirrored by hgmm/kernels/inter_node_attention/cpu.py.
struct Args {
  int64_t num_dst, num_src;
  int32_t M, H, D, wide_index, storage, threads, need_dst, need_src, need_bias, dropout;
  uint32_t drop_below, padding;
  uint64_t seed;
  double keep_scale;
  const void *indptr, *indices, *indptr_t, *indices_t, *edge_pos_t;
  const void *k, *q, *v;
  const uint8_t* present;
  const void* edge_bias;
  void *out, *attn, *lse;
  const void* grad_out;
  void* records;  // scratch of the backward pass, (N_dst, 2 S)
  void *grad_k, *grad_q, *grad_v, *grad_bias;
};

constexpr int64_t kTileBytes = 512 * 1024;
constexpr int64_t kEdgesAhead = 12;
constexpr int64_t kSourceAhead = 6;

template <class T>
struct Plan {
  Shape shape;
  int64_t limit;

  explicit Plan(const Args& a) : shape(a.M, a.H, a.D) {
    const int64_t edge = 16 + 5 * shape.S * int64_t(sizeof(T));
    limit = std::clamp<int64_t>(kTileBytes / edge, 8, 2048);
  }
  int64_t bytes() const {
    return 5 * Scratch::bytes_of<T>(limit * shape.S) + 2 * Scratch::bytes_of<int64_t>(limit) +
           5 * Scratch::bytes_of<T>(2 * shape.S);
  }
};

template <class T>
class Workspace {
 public:
  explicit Workspace(const Plan<T>& plan) : scratch_(plan.bytes()) {
    if (!ok()) return;
    for (int64_t** x : {&offset, &position}) *x = scratch_.template take<int64_t>(plan.limit);
    for (T** x : {&logit, &attn, &keep, &dv, &weight}) *x = scratch_.template take<T>(plan.limit * plan.shape.S);
    for (T** x : {&max, &sum, &scale, &other, &record}) *x = scratch_.template take<T>(2 * plan.shape.S);
  }
  bool ok() const { return scratch_.ok(); }

 private:
  Scratch scratch_;

 public:
  int64_t n = 0;
  int64_t *offset = nullptr, *position = nullptr;  // of the gathered rows; of the edges in the relation
  T *logit = nullptr, *attn = nullptr, *keep = nullptr, *dv = nullptr, *weight = nullptr;
  T *max = nullptr, *sum = nullptr, *scale = nullptr, *other = nullptr, *record = nullptr;
};

template <class St, int D8>
class InterNode {
  using T = typename Accumulator<St>::type;

 public:
  explicit InterNode(const Args& args)
      : a(args), plan(args), s(plan.shape), layout{s.S, s.Hp, 1}, in(index(a.indptr)), src(index(a.indices)),
        out_t(index(a.indptr_t)), dst(index(a.indices_t)), position_t(index(a.edge_pos_t)),
        num_edges(a.num_dst ? in[a.num_dst] : 0) {}

  bool forward() {
    prefer_large_pages(a.out, a.num_dst * s.F * int64_t(sizeof(T)));
    return rows_of(in, a.num_dst, [&](int64_t i, Workspace<T>& own) { forward_row(i, own); },
                   [&](int64_t i) { return forward_long(i); });
  }

  bool backward() {
    const int64_t row = s.F * int64_t(sizeof(T));
    prefer_large_pages(a.grad_q, a.need_dst ? a.num_dst * row : 0);
    for (void* x : {a.grad_k, a.grad_v}) prefer_large_pages(x, a.need_src ? a.num_src * row : 0);
    const bool ok = rows_of(in, a.num_dst, [&](int64_t i, Workspace<T>& own) { destination_row(i, own); },
                            [&](int64_t i) { return destination_long(i); });
    if (!ok || !a.need_src) return ok;
    return rows_of(
        out_t, a.num_src,
        [&](int64_t j, Workspace<T>& own) {
          source_part(j, out_t[j], out_t[j + 1], own, grad_k() + j * s.F, grad_v() + j * s.F);
        },
        [&](int64_t j) { return source_long(j); });
  }

 private:
  template <class Short, class Long>
  bool rows_of(Index indptr, int64_t num_rows, Short short_row, Long long_row) {
    const bool ok = for_rows<Workspace<T>>(
        indptr, num_rows, a.threads, plan, [&](int64_t first, int64_t last, Workspace<T>& own) {
          for (int64_t i = first; i < last; ++i) {
            if (indptr[i + 1] - indptr[i] <= plan.limit) short_row(i, own);
          }
        });
    if (!ok) return false;
    for (int64_t i : long_rows(indptr, num_rows, plan.limit)) {
      if (!long_row(i)) return false;
    }
    return true;
  }

  // ---- forward

  void forward_row(int64_t i, Workspace<T>& own) {
    T* out = static_cast<T*>(a.out) + i * s.F;
    clear(out, s.F);
    load(i, in[i], in[i + 1], own, true);
    softmax(own);
    invert(own.sum, own.scale, s.S);
    multiply(own.attn, own.n, own.scale, s.S);
    drop(own);
    add_rows<D8>(s, values(), own.offset, own.n, own.attn, layout, out);
    if (a.attn) store_edges(own.attn, own, static_cast<T*>(a.attn));
    Softmax<T>::finish(own.max, own.sum, own.record, s.S);
    store_heads(s, own.record, s.M, static_cast<T*>(a.lse) + i * s.M * s.H);
  }

  struct Partial {
    std::vector<T> max, sum, out;
    explicit Partial(const Shape& s)
        : max(size_t(s.S) + 8, kMinusInfinity<T>), sum(size_t(s.S) + 8, T(0)), out(size_t(s.F) + 8, T(0)) {}
  };

  bool forward_long(int64_t i) {
    const Segments segments(in[i], in[i + 1], plan.limit);
    std::vector<Partial> parts(size_t(segments.count), Partial(s));
    const bool ok = for_segments<Workspace<T>>(segments, a.threads, plan, [&](int64_t p, Workspace<T>& own) {
      Partial& part = parts[size_t(p)];
      for (int64_t e = segments.first(p); e < segments.last(p); e += plan.limit) {
        load(i, e, std::min(e + plan.limit, segments.last(p)), own, true);
        if (a.attn) store_edges(own.logit, own, static_cast<T*>(a.attn));
        softmax(own);
        Softmax<T>::merge(part.max.data(), part.sum.data(), own.max, own.sum, own.scale, own.other, s.S);
        scale_row(s, part.out.data(), own.scale, s.Hp);
        multiply(own.attn, own.n, own.other, s.S);
        drop(own);
        add_rows<D8>(s, values(), own.offset, own.n, own.attn, layout, part.out.data());
      }
    });
    if (!ok) return false;
    Partial total(s);
    std::vector<T> scale(size_t(s.S) + 8), other(size_t(s.S) + 8);
    for (Partial& part : parts) {
      Softmax<T>::merge(total.max.data(), total.sum.data(), part.max.data(), part.sum.data(), scale.data(),
                        other.data(), s.S);
      scale_row(s, total.out.data(), scale.data(), s.Hp);
      scale_row(s, part.out.data(), other.data(), s.Hp);
      add(total.out.data(), part.out.data(), s.F);
    }
    invert(total.sum.data(), scale.data(), s.S);
    scale_row(s, total.out.data(), scale.data(), s.Hp);
    std::memcpy(static_cast<T*>(a.out) + i * s.F, total.out.data(), size_t(s.F) * sizeof(T));
    Softmax<T>::finish(total.max.data(), total.sum.data(), other.data(), s.S);
    store_heads(s, other.data(), s.M, static_cast<T*>(a.lse) + i * s.M * s.H);
    return !a.attn || attention_long(segments, other.data());
  }

  // From the logits that the sweep has left in a.attn.
  bool attention_long(const Segments& segments, const T* lse) {
    return for_segments<Workspace<T>>(segments, a.threads, plan, [&](int64_t p, Workspace<T>& own) {
      for (int64_t e = segments.first(p); e < segments.last(p); ++e) {
        own.n = 1;
        own.position[0] = e;
        T* attn = static_cast<T*>(a.attn) + e * s.M * s.H;
        load_heads(s, attn, s.M, own.logit);
        for (int x = 0; x < s.S; ++x) own.attn[x] = own.logit[x] - lse[x];
        exp_all(own.attn, s.S);
        drop(own);
        store_edges(own.attn, own, static_cast<T*>(a.attn));
      }
    });
  }

  // ---- backward to destinations

  void load_record(int64_t i, T* record) {
    clear(record, 2 * s.S);
    load_heads(s, static_cast<const T*>(a.lse) + i * s.M * s.H, s.M, record);
    dots<D8>(s, grad_out() + i * s.F, static_cast<const T*>(a.out) + i * s.F, record + s.S);
    if (a.need_src) std::memcpy(records() + i * 2 * s.S, record, size_t(2 * s.S) * sizeof(T));
  }

  // Adds the query's gradient from the edges begin .. end, at most one tile.
  void destination_tile(int64_t i, int64_t begin, int64_t end, Workspace<T>& own, const T* record, T* query) {
    load(i, begin, end, own, true);
    for (int64_t e = 0; e < own.n; ++e) {
      dots<D8>(s, values() + own.offset[e], grad_out() + i * s.F, own.dv + e * s.S);
      minus(own.logit + e * s.S, record, own.attn + e * s.S);
    }
    exp_all(own.attn, own.n * s.S);
    copy_weights(own);
    drop(own);
    for (int64_t e = 0; e < own.n; ++e) logit_gradient(own, e, record + s.S);
    if (a.need_bias) store_edges(own.dv, own, static_cast<T*>(a.grad_bias));
    if (a.need_dst) add_rows<D8>(s, keys(), own.offset, own.n, own.dv, layout, query);
  }

  void destination_row(int64_t i, Workspace<T>& own) {
    load_record(i, own.record);
    if (!a.need_dst && !a.need_bias) return;
    T* query = a.need_dst ? grad_q() + i * s.F : nullptr;
    if (query) clear(query, s.F);
    destination_tile(i, in[i], in[i + 1], own, own.record, query);
  }

  bool destination_long(int64_t i) {
    std::vector<T> record(size_t(2 * s.S) + 8);
    load_record(i, record.data());
    if (!a.need_dst && !a.need_bias) return true;
    const Segments segments(in[i], in[i + 1], plan.limit);
    std::vector<std::vector<T>> parts(size_t(segments.count), std::vector<T>(size_t(s.F) + 8, T(0)));
    const bool ok = for_segments<Workspace<T>>(segments, a.threads, plan, [&](int64_t p, Workspace<T>& own) {
      for (int64_t e = segments.first(p); e < segments.last(p); e += plan.limit) {
        const int64_t end = std::min(e + plan.limit, segments.last(p));
        destination_tile(i, e, end, own, record.data(), parts[size_t(p)].data());
      }
    });
    if (!ok || !a.need_dst) return ok;
    clear(grad_q() + i * s.F, s.F);
    for (const std::vector<T>& part : parts) add(grad_q() + i * s.F, part.data(), s.F);
    return true;
  }

  // ---- backward to sources

  void source_tile(int64_t j, int64_t begin, int64_t end, Workspace<T>& own, T* key, T* value) {
    own.n = end - begin;
    const uint8_t bits = modality_bits(a.present, j, s.M);
    const int64_t total = out_t[a.num_src];
    for (int64_t e = 0; e < own.n; ++e) {
      if (begin + e + kSourceAhead < total) prefetch_destination(dst[begin + e + kSourceAhead]);
      const int64_t i = dst[begin + e];
      own.offset[e] = i * s.F;
      own.position[e] = position_t[begin + e];
      dots<D8>(s, keys() + j * s.F, queries() + i * s.F, own.logit + e * s.S);
      dots<D8>(s, values() + j * s.F, grad_out() + i * s.F, own.dv + e * s.S);
      finish_logit(own, e, bits);
      minus(own.logit + e * s.S, records() + i * 2 * s.S, own.attn + e * s.S);
    }
    exp_all(own.attn, own.n * s.S);
    copy_weights(own);
    drop(own);
    for (int64_t e = 0; e < own.n; ++e) {
      logit_gradient(own, e, records() + own.offset[e] / s.F * 2 * s.S + s.S);
    }
    add_rows<D8>(s, queries(), own.offset, own.n, own.dv, layout, key);
    add_rows<D8>(s, grad_out(), own.offset, own.n, own.attn, layout, value);
  }

  HGMM_PREFETCHES void prefetch_destination(int64_t i) {
    prefetch_row(queries() + i * s.F, s.F);
    prefetch_row(grad_out() + i * s.F, s.F);
    prefetch_row(records() + i * 2 * s.S, 2 * s.S);
  }

  void source_part(int64_t j, int64_t begin, int64_t end, Workspace<T>& own, T* key, T* value) {
    clear(key, s.F);
    clear(value, s.F);
    for (int64_t e = begin; e < end; e += plan.limit) {
      source_tile(j, e, std::min(e + plan.limit, end), own, key, value);
    }
    forget_absent(s, a.present, j, key);
    forget_absent(s, a.present, j, value);
  }

  bool source_long(int64_t j) {
    const Segments segments(out_t[j], out_t[j + 1], plan.limit);
    std::vector<std::vector<T>> parts(size_t(segments.count), std::vector<T>(size_t(2 * s.F) + 8));
    const bool ok = for_segments<Workspace<T>>(segments, a.threads, plan, [&](int64_t p, Workspace<T>& own) {
      T* part = parts[size_t(p)].data();
      source_part(j, segments.first(p), segments.last(p), own, part, part + s.F);
    });
    if (!ok) return false;
    clear(grad_k() + j * s.F, s.F);
    clear(grad_v() + j * s.F, s.F);
    for (const std::vector<T>& part : parts) {
      add(grad_k() + j * s.F, part.data(), s.F);
      add(grad_v() + j * s.F, part.data() + s.F, s.F);
    }
    return true;
  }

  // ---- shared by the passes

  // Gathers the edges begin .. end of destination i and their logits, -inf where the source lacks the modality.
  void load(int64_t i, int64_t begin, int64_t end, Workspace<T>& own, bool fetch_values) {
    own.n = end - begin;
    for (int64_t e = 0; e < own.n; ++e) {
      if (begin + e + kEdgesAhead < num_edges) prefetch_row(keys() + src[begin + e + kEdgesAhead] * s.F, s.F);
      const int64_t j = src[begin + e];
      own.offset[e] = j * s.F;
      own.position[e] = begin + e;
      if (fetch_values && e < 2 * kEdgesInCache) prefetch_row(values() + j * s.F, s.F);
      dots<D8>(s, keys() + j * s.F, queries() + i * s.F, own.logit + e * s.S);
      finish_logit(own, e, modality_bits(a.present, j, s.M));
    }
  }

  // Adds the bias and takes absent modalities out.
  void finish_logit(Workspace<T>& own, int64_t e, int bits) {
    T* logit = own.logit + e * s.S;
    if (a.edge_bias) {
      const T* bias = static_cast<const T*>(a.edge_bias) + own.position[e] * s.M * s.H;
      for (int m = 0; m < s.M; ++m) {
        for (int h = 0; h < s.H; ++h) logit[m * s.Hp + h] += bias[m * s.H + h];
      }
    }
    if (!a.present) return;
    for (int m = 0; m < s.M; ++m) {
      if (bits >> m & 1) continue;
      for (int h = 0; h < s.Hp; h += 4) store4(logit + m * s.Hp + h, splat4(kMinusInfinity<T>));
    }
  }

  // Maxima and sums of the tile's softmax; exp(logit - max) in own.attn.
  void softmax(Workspace<T>& own) {
    Softmax<T>::clear(own.max, own.sum, s.S);
    for (int64_t e = 0; e < own.n; ++e) {
      for (int x = 0; x < s.S; x += 4) store4(own.max + x, vmax(load4(own.max + x), load4(own.logit + e * s.S + x)));
    }
    for (int x = 0; x < s.S; x += 4) store4(own.other + x, finite_or_zero<T>(load4(own.max + x)));
    for (int64_t e = 0; e < own.n; ++e) minus(own.logit + e * s.S, own.other, own.attn + e * s.S);
    exp_all(own.attn, own.n * s.S);
    for (int64_t e = 0; e < own.n; ++e) {
      for (int x = 0; x < s.S; x += 4) store4(own.sum + x, load4(own.sum + x) + load4(own.attn + e * s.S + x));
    }
  }

  void minus(const T* x, const T* y, T* out) const {
    for (int i = 0; i < s.S; i += 4) store4(out + i, load4(x + i) - load4(y + i));
  }

  void copy_weights(Workspace<T>& own) { std::memcpy(own.weight, own.attn, size_t(own.n * s.S) * sizeof(T)); }

  // Multiplies the weights in own.attn by 0 or 1 / (1 - dropout), and leaves these factors in own.keep.
  void drop(Workspace<T>& own) {
    if (!a.dropout) return;
    const T scale = T(a.keep_scale);
    for (int64_t e = 0; e < own.n; ++e) {
      const uint64_t at = uint64_t(own.position[e]);
      for (int m = 0; m < s.M; ++m) {
        for (int h = 0; h < s.Hp; h += 4) {
          const Philox random(uint32_t(at), uint32_t(at >> 32), uint32_t(h / 4), uint32_t(m), uint32_t(a.seed),
                              uint32_t(a.seed >> 32));
          V4<T> keep;
          for (int i = 0; i < 4; ++i) keep[i] = random.word[i] < a.drop_below ? T(0) : scale;
          const int64_t x = e * s.S + m * s.Hp + h;
          store4(own.keep + x, keep);
          store4(own.attn + x, load4(own.attn + x) * keep);
        }
      }
    }
  }

  // own.dv = <G, v> becomes the logit's gradient, attention before dropout times (keep <G, v> - D).
  void logit_gradient(Workspace<T>& own, int64_t e, const T* D) {
    for (int i = 0; i < s.S; i += 4) {
      const int64_t x = e * s.S + i;
      V4<T> d = load4(own.dv + x);
      if (a.dropout) d *= load4(own.keep + x);
      store4(own.dv + x, load4(own.weight + x) * (d - load4(D + i)));
    }
  }

  void store_edges(const T* x, const Workspace<T>& own, T* tensor) {
    for (int64_t e = 0; e < own.n; ++e) store_heads(s, x + e * s.S, s.M, tensor + own.position[e] * s.M * s.H);
  }

  Index index(const void* data) const { return {data, a.wide_index != 0}; }

  const St* keys() const { return static_cast<const St*>(a.k); }
  const St* values() const { return static_cast<const St*>(a.v); }
  const T* queries() const { return static_cast<const T*>(a.q); }
  const T* grad_out() const { return static_cast<const T*>(a.grad_out); }
  T* records() const { return static_cast<T*>(a.records); }
  T* grad_k() const { return static_cast<T*>(a.grad_k); }
  T* grad_v() const { return static_cast<T*>(a.grad_v); }
  T* grad_q() const { return static_cast<T*>(a.grad_q); }

  const Args& a;
  const Plan<T> plan;
  const Shape& s;
  const WeightLayout layout;
  const Index in, src, out_t, dst, position_t;
  const int64_t num_edges;
};

template <class St, int D8>
int run_shape(const Args& a, bool backward) {
  InterNode<St, D8> op(a);
  return (backward ? op.backward() : op.forward()) ? kOk : kOutOfMemory;
}

template <class St>
int run_storage(const Args& a, bool backward) {
  // float64 is for checks, not for speed.
  if constexpr (std::is_same_v<St, double>) return run_shape<St, 0>(a, backward);
  switch (a.D) {
    case 8: return run_shape<St, 1>(a, backward);
    case 16: return run_shape<St, 2>(a, backward);
    case 32: return run_shape<St, 4>(a, backward);
    case 64: return run_shape<St, 8>(a, backward);
    default: return run_shape<St, 0>(a, backward);
  }
}

int run(const Args& a, bool backward) {
  if (a.M < 1 || a.M > kMaxModalities) return kUnknownOption;
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

HGMM_API int hgmm_inter_node_forward(const hgmm::Args* args) { return hgmm::run(*args, false); }
HGMM_API int hgmm_inter_node_backward(const hgmm::Args* args) { return hgmm::run(*args, true); }

// Numbers of one destination's record, which the caller allocates for the backward pass.
HGMM_API int64_t hgmm_inter_node_record_size(int M, int H) { return 2 * hgmm::Shape(M, H, 1).S; }
