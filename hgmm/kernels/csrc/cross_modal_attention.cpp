// cross_modal_attention on the CPU: forward, backward to destinations, backward to sources.
//
// A row of up to `limit` edges is one tile: logits stay in scratch and are computed once. A longer row is worked off in
// segments, in several sweeps that compute the logits anew; each sweep leaves the segments' sums, which are combined in
// order. Nothing is kept by edge.
#include <new>
#include <type_traits>

#include "cross_modal_math.h"

namespace hgmm {
namespace {

// Mirrored by hgmm/kernels/cross_modal_attention/cpu.py.
struct Args {
  int64_t num_dst, num_src;
  int32_t M, H, D, wide_index, storage, combine, align, uniform_nodes, uniform_modalities, threads, need_dst, need_src;
  double gamma;
  const void *indptr, *indices, *indptr_t, *indices_t;
  const void *k, *q_node, *q_modal, *v;
  const uint8_t* present;
  const void* lambda_weight;
  void *out, *lambda_sum, *attn, *stats;
  const void *grad_out, *grad_lambda_sum;
  void* records;  // scratch of the backward pass, (N_dst, record size)
  void *grad_k, *grad_q_node, *grad_q_modal, *grad_v;
};

// Numbers of a tile's scratch; small enough for the second-level cache, and far below 4 MiB a thread.
constexpr int64_t kTileBytes = 512 * 1024;
constexpr int64_t kMaxTileEdges = 2048;
constexpr int64_t kMinTileEdges = 8;
// How many edges ahead keys are fetched, across row ends.
constexpr int64_t kEdgesAhead = 12;

template <class T>
struct Plan {
  Shape shape;
  CrossModalMode mode;
  RecordLayout layout;
  int64_t limit;
  bool backward;

  Plan(const Args& a, bool backward_)
      : shape(a.M, a.H, a.D),
        mode(Combine(a.combine), a.align, a.gamma, a.present != nullptr, a.uniform_nodes, a.uniform_modalities),
        layout(shape, a.grad_lambda_sum != nullptr), backward(backward_) {
    const int64_t bytes = Tile<T>::bytes(shape, 64, backward) / 64;
    limit = std::clamp(kTileBytes / bytes, kMinTileEdges, kMaxTileEdges);
  }
};

// What a thread owns: one tile, and numbers of one row.
template <class T>
class Workspace {
 public:
  explicit Workspace(const Plan<T>& plan)
      : scratch_(Tile<T>::bytes(plan.shape, plan.limit, plan.backward) + row_bytes(plan)),
        tile(scratch_, plan.shape, scratch_.ok() ? plan.limit : 0, plan.backward) {
    const int S = plan.shape.S;
    for (T** x : {&record, &max, &sum, &scale, &u_max, &u_sum, &u_scale, &lambda}) {
      *x = scratch_.template take<T>(std::max(plan.layout.size, S));
    }
    for (T** x : {&row, &row2}) *x = scratch_.template take<T>(plan.shape.F);
  }
  bool ok() const { return scratch_.ok(); }

 private:
  static int64_t row_bytes(const Plan<T>& plan) {
    return 8 * Scratch::bytes_of<T>(std::max(plan.layout.size, plan.shape.S)) + 2 * Scratch::bytes_of<T>(plan.shape.F);
  }
  Scratch scratch_;

 public:
  Tile<T> tile;
  T *record, *max, *sum, *scale, *u_max, *u_sum, *u_scale, *lambda;
  T *row, *row2;
};

template <class St, int D8>
class CrossModal {
  using T = typename Accumulator<St>::type;

 public:
  CrossModal(const Args& args, bool backward)
      : a(args), plan(args, backward), s(plan.shape), mode(plan.mode), at(plan.layout),
        steps(make_edge_math<T>(s, mode, at)), math(*steps),
        in{args.indptr, args.wide_index != 0}, src{args.indices, args.wide_index != 0},
        out_t{args.indptr_t, args.wide_index != 0}, dst{args.indices_t, args.wide_index != 0},
        num_edges(args.num_dst ? in[args.num_dst] : 0), stats_size(int64_t{2 * s.M + 2} * s.H) {}

  bool forward() {
    prefer_large_pages(a.out, a.num_dst * s.F * int64_t(sizeof(T)));
    const bool ok = for_rows<Workspace<T>>(
        in, a.num_dst, a.threads, plan, [&](int64_t first, int64_t last, Workspace<T>& own) {
          for (int64_t i = first; i < last; ++i) {
            if (in[i + 1] - in[i] <= plan.limit) forward_row(i, own);
          }
        });
    if (!ok) return false;
    for (int64_t i : long_rows(in, a.num_dst, plan.limit)) {
      if (!forward_long(i)) return false;
    }
    return true;
  }

  bool backward() {
    const int64_t row = s.F * int64_t(sizeof(T));
    for (void* x : {a.grad_q_node, a.grad_q_modal}) prefer_large_pages(x, a.need_dst ? a.num_dst * row : 0);
    for (void* x : {a.grad_k, a.grad_v}) prefer_large_pages(x, a.need_src ? a.num_src * row : 0);
    const bool ok = for_rows<Workspace<T>>(
        in, a.num_dst, a.threads, plan, [&](int64_t first, int64_t last, Workspace<T>& own) {
          for (int64_t i = first; i < last; ++i) {
            if (in[i + 1] - in[i] <= plan.limit) destination_row(i, own);
          }
        });
    if (!ok) return false;
    for (int64_t i : long_rows(in, a.num_dst, plan.limit)) {
      if (!destination_long(i)) return false;
    }
    return !a.need_src || backward_to_sources();
  }

 private:
  bool backward_to_sources() {
    const bool ok = for_rows<Workspace<T>>(
        out_t, a.num_src, a.threads, plan, [&](int64_t first, int64_t last, Workspace<T>& own) {
          for (int64_t j = first; j < last; ++j) {
            const int64_t begin = out_t[j], end = out_t[j + 1];
            if (end - begin <= plan.limit) source_part(j, begin, end, own, grad_k() + j * s.F, grad_v() + j * s.F);
          }
        });
    if (!ok) return false;
    for (int64_t j : long_rows(out_t, a.num_src, plan.limit)) {
      if (!source_long(j)) return false;
    }
    return true;
  }

  // ---- forward

  void forward_row(int64_t i, Workspace<T>& own) {
    Tile<T>& tile = own.tile;
    T* out = static_cast<T*>(a.out) + i * s.F;
    T* record = own.record;
    clear(out, s.F);
    clear(record, at.size);
    load_logits(i, in[i], in[i + 1], own, true);
    math.disagreement(tile);
    math.row_statistics(tile, own.max, own.sum, own.u_max, own.u_sum);
    Softmax<T>::finish(own.max, own.sum, record + at.A, s.S);
    if (mode.uses_b2) Softmax<T>::finish(own.u_max, own.u_sum, record + at.U, s.Hp);
    invert(own.sum, own.scale, s.S);
    invert(own.u_sum, own.u_scale, s.Hp);
    math.weights(tile, true, own.scale, own.u_scale, false);
    if (mode.combine == kPoster) poster_record(tile, record, own);
    math.edge_logits(tile);
    math.value_statistics(tile, own.max, own.sum);
    if (mode.softmaxed) {
      Softmax<T>::finish(own.max, own.sum, record + at.R, rho_layout(s, mode).edge);
      invert(own.sum, own.scale, rho_layout(s, mode).edge);
      multiply(tile.rho, tile.n, own.scale, rho_layout(s, mode).edge);
    }
    add_rows<D8>(s, values(), tile.offset, tile.n, tile.rho, rho_layout(s, mode), out);
    if (a.lambda_sum) {
      clear(own.lambda, s.S);
      math.add_lambda(tile, lambda_weight(), own.lambda);
      store_heads(s, own.lambda, s.M, static_cast<T*>(a.lambda_sum) + i * s.M * s.H);
    }
    if (a.attn) store_attention(tile, in[i], own);
    store_stats(i, record);
  }

  void poster_record(Tile<T>& tile, T* record, Workspace<T>& own) {
    clear(own.u_sum, s.Hp);
    math.poster_statistics(tile, own.u_sum);
    clear(own.u_max, s.Hp);
    Softmax<T>::finish(own.u_max, own.u_sum, record + at.P, s.Hp);
  }

  // beta of a row that is one tile.
  void store_attention(const Tile<T>& tile, int64_t first_edge, Workspace<T>& own) {
    T* attn = static_cast<T*>(a.attn) + first_edge * s.H;
    if (!mode.masked || mode.combine == kB1) {
      const T* weight = mode.masked ? tile.w : tile.rho;
      for (int64_t e = 0; e < tile.n; ++e) {
        for (int h = 0; h < s.H; ++h) {
          const T x = weight[e * s.Hp + h];
          attn[e * s.H + h] = mode.masked ? std::exp(x) : x;
        }
      }
      return;
    }
    Softmax<T>::clear(own.u_max, own.u_sum, s.Hp);
    merge_attention(tile, own.u_max, own.u_sum);
    for (int64_t e = 0; e < tile.n; ++e) {
      for (int h = 0; h < s.H; ++h) {
        attn[e * s.H + h] = beta(tile.node[e], tile.w[e * s.Hp + h], own.u_max[h], own.u_sum[h]);
      }
    }
  }

  // An edge's share of a softmax. A source without any modality has none, not even of a sum that is NaN.
  T beta(int64_t j, T w, T max, T sum) const { return bits_of(j) ? std::exp(w - max) / sum : T(0); }

  // The softmax of w over all sources that have any modality, for attention with a mask; leaves a finite maximum.
  void merge_attention(const Tile<T>& tile, T* max, T* sum) {
    for (int h = 0; h < s.Hp; ++h) {
      T top = max[h];
      for (int64_t e = 0; e < tile.n; ++e) top = std::max(top, tile.w[e * s.Hp + h]);
      if (top == kMinusInfinity<T>) top = 0;
      sum[h] *= std::exp(max[h] - top);
      for (int64_t e = 0; e < tile.n; ++e) sum[h] += std::exp(tile.w[e * s.Hp + h] - top);
      max[h] = top;
    }
  }

  // What the sweeps over a long row leave for a segment.
  struct Partial {
    std::vector<T> numbers;
    T *max, *sum, *u_max, *u_sum, *p_sum, *r_max, *r_sum, *w_max, *w_sum, *lambda, *out;
    void reset(const Shape& s) {
      numbers.assign(size_t(5 * s.S + 5 * s.Hp + s.F) + 16, T(0));
      T* next = numbers.data();
      for (T** x : {&max, &sum, &r_max, &r_sum, &lambda}) next = place(x, next, s.S);
      for (T** x : {&u_max, &u_sum, &p_sum, &w_max, &w_sum}) next = place(x, next, s.Hp);
      out = next;
      Softmax<T>::clear(max, sum, s.S);
      Softmax<T>::clear(r_max, r_sum, s.S);
      Softmax<T>::clear(u_max, u_sum, s.Hp);
      Softmax<T>::clear(w_max, w_sum, s.Hp);
    }
    static T* place(T** x, T* next, int count) {
      *x = next;
      return next + count;
    }
  };

  template <class Body>
  bool for_tiles(const Segments& segments, Body body) {
    return for_segments<Workspace<T>>(segments, a.threads, plan, [&](int64_t part, Workspace<T>& own) {
      for (int64_t e = segments.first(part); e < segments.last(part); e += plan.limit) {
        body(part, e, std::min(e + plan.limit, segments.last(part)), own);
      }
    });
  }

  bool forward_long(int64_t i) {
    const Segments segments(in[i], in[i + 1], plan.limit);
    std::vector<Partial> parts(static_cast<size_t>(segments.count));
    for (Partial& part : parts) part.reset(s);
    Partial total;
    total.reset(s);
    std::vector<T> record(size_t(at.size) + 8, T(0)), unit(size_t(s.S) + 8, T(1));
    const int lanes = rho_layout(s, mode).edge;

    bool ok = for_tiles(segments, [&](int64_t p, int64_t begin, int64_t end, Workspace<T>& own) {
      load_logits(i, begin, end, own, false);
      math.disagreement(own.tile);
      math.row_statistics(own.tile, own.max, own.sum, own.u_max, own.u_sum);
      Softmax<T>::merge(parts[p].max, parts[p].sum, own.max, own.sum, nullptr, nullptr, s.S);
      if (mode.uses_b2) Softmax<T>::merge(parts[p].u_max, parts[p].u_sum, own.u_max, own.u_sum, nullptr, nullptr, s.Hp);
    });
    if (!ok) return false;
    for (const Partial& part : parts) {
      Softmax<T>::merge(total.max, total.sum, part.max, part.sum, nullptr, nullptr, s.S);
      Softmax<T>::merge(total.u_max, total.u_sum, part.u_max, part.u_sum, nullptr, nullptr, s.Hp);
    }
    Softmax<T>::finish(total.max, total.sum, record.data() + at.A, s.S);
    if (mode.uses_b2) Softmax<T>::finish(total.u_max, total.u_sum, record.data() + at.U, s.Hp);

    if (mode.combine == kPoster) {
      ok = for_tiles(segments, [&](int64_t p, int64_t begin, int64_t end, Workspace<T>& own) {
        load_known(i, begin, end, own, record.data(), false);
        math.poster_statistics(own.tile, parts[p].p_sum);
      });
      if (!ok) return false;
      for (const Partial& part : parts) add(total.p_sum, part.p_sum, s.Hp);
      std::vector<T> zero(size_t(s.Hp), T(0));
      Softmax<T>::finish(zero.data(), total.p_sum, record.data() + at.P, s.Hp);
    }

    ok = for_tiles(segments, [&](int64_t p, int64_t begin, int64_t end, Workspace<T>& own) {
      load_known(i, begin, end, own, record.data(), false);
      Tile<T>& tile = own.tile;
      math.edge_logits(tile);
      math.value_statistics(tile, own.max, own.sum);
      if (mode.softmaxed) {
        Softmax<T>::merge(parts[p].r_max, parts[p].r_sum, own.max, own.sum, own.scale, own.u_scale, lanes);
        scale_row(s, parts[p].out, own.scale, rho_layout(s, mode).modality);
        multiply(tile.rho, tile.n, own.u_scale, lanes);
      }
      add_rows<D8>(s, values(), tile.offset, tile.n, tile.rho, rho_layout(s, mode), parts[p].out);
      if (a.lambda_sum) math.add_lambda(tile, lambda_weight(), parts[p].lambda);
      if (a.attn) store_logits(tile, begin, parts[p]);
    });
    if (!ok) return false;
    combine_long(i, segments, parts, total, record.data());
    return true;
  }

  void combine_long(int64_t i, const Segments& segments, std::vector<Partial>& parts, Partial& total, T* record) {
    const int lanes = rho_layout(s, mode).edge;
    std::vector<T> scale(size_t(s.S) + 8), other(size_t(s.S) + 8);
    for (Partial& part : parts) {
      if (mode.softmaxed) {
        Softmax<T>::merge(total.r_max, total.r_sum, part.r_max, part.r_sum, scale.data(), other.data(), lanes);
        scale_row(s, total.out, scale.data(), rho_layout(s, mode).modality);
        scale_row(s, part.out, other.data(), rho_layout(s, mode).modality);
      }
      add(total.out, part.out, s.F);
      add(total.lambda, part.lambda, s.S);
    }
    if (mode.softmaxed) {
      Softmax<T>::finish(total.r_max, total.r_sum, record + at.R, lanes);
      invert(total.r_sum, scale.data(), lanes);
      scale_row(s, total.out, scale.data(), rho_layout(s, mode).modality);
    }
    std::memcpy(static_cast<T*>(a.out) + i * s.F, total.out, size_t(s.F) * sizeof(T));
    if (a.lambda_sum) store_heads(s, total.lambda, s.M, static_cast<T*>(a.lambda_sum) + i * s.M * s.H);
    if (a.attn) finish_attention(segments, parts, total);
    store_stats(i, record);
  }

  // w of a long row's tile, for finish_attention.
  void store_logits(const Tile<T>& tile, int64_t first_edge, Partial& part) {
    T* attn = static_cast<T*>(a.attn) + first_edge * s.H;
    for (int64_t e = 0; e < tile.n; ++e) {
      for (int h = 0; h < s.H; ++h) attn[e * s.H + h] = tile.w[e * s.Hp + h];
    }
    merge_attention(tile, part.w_max, part.w_sum);
  }

  void finish_attention(const Segments& segments, const std::vector<Partial>& parts, Partial& total) {
    for (const Partial& part : parts) {
      Softmax<T>::merge(total.w_max, total.w_sum, part.w_max, part.w_sum, nullptr, nullptr, s.Hp);
    }
    T* attn = static_cast<T*>(a.attn);
    for (int64_t e = segments.begin; e < segments.end; ++e) {
      for (int h = 0; h < s.H; ++h) {
        T& x = attn[e * s.H + h];
        if (mode.combine == kB1) {
          x = mode.masked ? std::exp(x) : x;
        } else {
          x = beta(src[e], x, total.w_max[h], total.w_sum[h]);
        }
      }
    }
  }

  // ---- backward to destinations

  // Fills a destination's record with what the forward pass has left and D.
  void load_record(int64_t i, T* record) {
    clear(record, at.size);
    const T* stats = static_cast<const T*>(a.stats) + i * stats_size;
    load_heads(s, stats, s.M, record + at.A);
    load_heads(s, stats + s.M * s.H, s.M, record + at.R);
    load_heads(s, stats + 2 * s.M * s.H, 1, record + at.U);
    load_heads(s, stats + (2 * s.M + 1) * s.H, 1, record + at.P);
    dots<D8>(s, grad_out() + i * s.F, static_cast<const T*>(a.out) + i * s.F, record + at.D);
    if (a.grad_lambda_sum) {
      load_heads(s, static_cast<const T*>(a.grad_lambda_sum) + i * s.M * s.H, s.M, record + at.L);
    }
  }

  void destination_row(int64_t i, Workspace<T>& own) {
    const int64_t begin = in[i], end = in[i + 1];
    T* record = own.record;
    Tile<T>& tile = own.tile;
    load_record(i, record);
    load_gradients(i, begin, end, own, record);
    math.reduce_parts(tile, record + at.C2, record + at.C3);
    if (mode.combine == kPoster) math.poster_parts(tile);
    math.reduce_y(tile, record + at.C);
    if (a.need_dst) {
      T *node = grad_q_node() + i * s.F, *modal = grad_q_modal() + i * s.F;
      clear(node, s.F);
      clear(modal, s.F);
      add_query_gradients(tile, node, modal);
    }
    store_record(i, record);
  }

  void add_query_gradients(Tile<T>& tile, T* node, T* modal) {
    math.logit_gradients(tile, a.grad_lambda_sum ? lambda_weight() : nullptr, true);
    const WeightLayout layout{s.S, s.Hp, 1};
    add_rows<D8>(s, keys(), tile.offset, tile.n, tile.alpha, layout, node);
    add_rows<D8>(s, keys(), tile.offset, tile.n, tile.lambda, layout, modal);
  }

  bool destination_long(int64_t i) {
    const Segments segments(in[i], in[i + 1], plan.limit);
    std::vector<T> record(size_t(at.size) + 8);
    load_record(i, record.data());
    const size_t lanes = size_t(s.S + 2 * s.Hp) + 8;
    std::vector<std::vector<T>> sums(size_t(segments.count), std::vector<T>(lanes, T(0)));
    T *c = record.data() + at.C, *c2 = record.data() + at.C2, *c3 = record.data() + at.C3;

    bool ok = for_tiles(segments, [&](int64_t p, int64_t begin, int64_t end, Workspace<T>& own) {
      load_gradients(i, begin, end, own, record.data());
      T* sum = sums[p].data();
      math.reduce_parts(own.tile, sum + s.S, sum + s.S + s.Hp);
      if (mode.combine != kPoster) math.reduce_y(own.tile, sum);
    });
    if (!ok) return false;
    for (const std::vector<T>& sum : sums) {
      add(c, sum.data(), s.S);
      add(c2, sum.data() + s.S, s.Hp);
      add(c3, sum.data() + s.S + s.Hp, s.Hp);
    }
    if (mode.combine == kPoster) {
      ok = for_tiles(segments, [&](int64_t p, int64_t begin, int64_t end, Workspace<T>& own) {
        load_gradients(i, begin, end, own, record.data());
        math.poster_parts(own.tile);
        math.reduce_y(own.tile, sums[p].data());
      });
      if (!ok) return false;
      for (const std::vector<T>& sum : sums) add(c, sum.data(), s.S);
    }
    store_record(i, record.data());
    return !a.need_dst || query_gradients_long(i, segments, record.data());
  }

  bool query_gradients_long(int64_t i, const Segments& segments, const T* record) {
    std::vector<std::vector<T>> parts(size_t(segments.count), std::vector<T>(size_t(2 * s.F) + 8, T(0)));
    const bool ok = for_tiles(segments, [&](int64_t p, int64_t begin, int64_t end, Workspace<T>& own) {
      load_gradients(i, begin, end, own, record);
      if (mode.combine == kPoster) math.poster_parts(own.tile);
      add_query_gradients(own.tile, parts[p].data(), parts[p].data() + s.F);
    });
    if (!ok) return false;
    T *node = grad_q_node() + i * s.F, *modal = grad_q_modal() + i * s.F;
    clear(node, s.F);
    clear(modal, s.F);
    for (const std::vector<T>& part : parts) {
      add(node, part.data(), s.F);
      add(modal, part.data() + s.F, s.F);
    }
    return true;
  }

  // ---- backward to sources

  // Gradients of source j from its out-edges begin .. end, at most one tile.
  void source_tile(int64_t j, int64_t begin, int64_t end, Workspace<T>& own, T* node, T* value) {
    Tile<T>& tile = own.tile;
    tile.n = end - begin;
    const uint8_t bits = bits_of(j);
    const int64_t total = out_t[a.num_src];
    for (int64_t e = 0; e < tile.n; ++e) {
      if (begin + e + kSourceAhead < total) prefetch_destination(dst[begin + e + kSourceAhead]);
      const int64_t i = dst[begin + e];
      tile.node[e] = i;
      tile.offset[e] = i * s.F;
      tile.bits[e] = bits;
      tile.record[e] = records() + i * at.size;
      dots2<D8>(s, keys() + j * s.F, q_node() + i * s.F, q_modal() + i * s.F, tile.g + e * s.S, tile.t + e * s.S);
      dots<D8>(s, values() + j * s.F, grad_out() + i * s.F, tile.dv + e * s.S);
    }
    edge_gradients(own, nullptr);
    if (mode.combine == kPoster) math.poster_parts(tile);
    math.logit_gradients(tile, a.grad_lambda_sum ? lambda_weight() + j * s.M : nullptr, false);
    const WeightLayout layout{s.S, s.Hp, 1};
    // A gradient of 0 would not take out what is infinite or NaN in a query that is not read.
    if (mode.reads_g) add_rows<D8>(s, q_node(), tile.offset, tile.n, tile.alpha, layout, node);
    if (!mode.uniform_modalities) add_rows<D8>(s, q_modal(), tile.offset, tile.n, tile.lambda, layout, node);
    add_rows<D8>(s, grad_out(), tile.offset, tile.n, tile.rho, rho_layout(s, mode), value);
  }

  HGMM_PREFETCHES void prefetch_destination(int64_t i) {
    prefetch_row(q_node() + i * s.F, s.F);
    prefetch_row(q_modal() + i * s.F, s.F);
    prefetch_row(grad_out() + i * s.F, s.F);
    prefetch_row(records() + i * at.size, at.size);
  }

  void source_part(int64_t j, int64_t begin, int64_t end, Workspace<T>& own, T* node, T* value) {
    clear(node, s.F);
    clear(value, s.F);
    for (int64_t e = begin; e < end; e += plan.limit) {
      source_tile(j, e, std::min(e + plan.limit, end), own, node, value);
    }
    forget_absent(s, a.present, j, node);
    forget_absent(s, a.present, j, value);
  }

  bool source_long(int64_t j) {
    const Segments segments(out_t[j], out_t[j + 1], plan.limit);
    std::vector<std::vector<T>> parts(size_t(segments.count), std::vector<T>(size_t(2 * s.F) + 8));
    const bool ok = for_segments<Workspace<T>>(segments, a.threads, plan, [&](int64_t p, Workspace<T>& own) {
      source_part(j, segments.first(p), segments.last(p), own, parts[p].data(), parts[p].data() + s.F);
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

  // Gathers the edges begin .. end of destination i and their logits; fetches the values that will be read next.
  void load_logits(int64_t i, int64_t begin, int64_t end, Workspace<T>& own, bool fetch_values) {
    Tile<T>& tile = own.tile;
    tile.n = end - begin;
    const bool fetch = fetch_values && tile.n <= 2 * kEdgesInCache;
    for (int64_t e = 0; e < tile.n; ++e) {
      if (begin + e + kEdgesAhead < num_edges) prefetch_row(keys() + src[begin + e + kEdgesAhead] * s.F, s.F);
      const int64_t j = src[begin + e];
      tile.node[e] = j;
      tile.offset[e] = j * s.F;
      tile.bits[e] = bits_of(j);
      tile.record[e] = own.record;
      if (fetch) prefetch_row(values() + j * s.F, s.F);
      dots2<D8>(s, keys() + j * s.F, q_node() + i * s.F, q_modal() + i * s.F, tile.g + e * s.S, tile.t + e * s.S);
    }
    if (fetch_values && !fetch) {
      for (int64_t e = 0; e < std::min(kEdgesInCache, tile.n); ++e) prefetch_row(values() + tile.offset[e], s.F);
    }
  }

  // Logits and the weights that follow from a record that is known.
  void load_known(int64_t i, int64_t begin, int64_t end, Workspace<T>& own, const T* record, bool need_alpha) {
    load_logits(i, begin, end, own, false);
    for (int64_t e = 0; e < own.tile.n; ++e) own.tile.record[e] = record;
    math.disagreement(own.tile);
    math.weights(own.tile, false, nullptr, nullptr, need_alpha);
  }

  void load_gradients(int64_t i, int64_t begin, int64_t end, Workspace<T>& own, const T* record) {
    Tile<T>& tile = own.tile;
    load_logits(i, begin, end, own, true);
    for (int64_t e = 0; e < tile.n; ++e) {
      if (e + kEdgesInCache < tile.n) prefetch_row(values() + tile.offset[e + kEdgesInCache], s.F);
      dots<D8>(s, values() + tile.offset[e], grad_out() + i * s.F, tile.dv + e * s.S);
    }
    edge_gradients(own, record);
  }

  // Everything up to y, db2 and da, from logits and dv; `record` replaces the tile's own records.
  void edge_gradients(Workspace<T>& own, const T* record) {
    Tile<T>& tile = own.tile;
    if (record) {
      for (int64_t e = 0; e < tile.n; ++e) tile.record[e] = record;
    }
    math.disagreement(tile);
    math.weights(tile, false, nullptr, nullptr, true);
    math.edge_logits(tile);
    math.known_values(tile);
    math.gradient_parts(tile);
  }

  uint8_t bits_of(int64_t j) const { return modality_bits(a.present, j, s.M); }

  void store_stats(int64_t i, const T* record) {
    T* stats = static_cast<T*>(a.stats) + i * stats_size;
    store_heads(s, record + at.A, s.M, stats);
    store_heads(s, record + at.R, s.M, stats + s.M * s.H);
    store_heads(s, record + at.U, 1, stats + 2 * s.M * s.H);
    store_heads(s, record + at.P, 1, stats + (2 * s.M + 1) * s.H);
  }

  void store_record(int64_t i, const T* record) {
    if (a.need_src) std::memcpy(static_cast<T*>(a.records) + i * at.size, record, size_t(at.size) * sizeof(T));
  }

  const St* keys() const { return static_cast<const St*>(a.k); }
  const St* values() const { return static_cast<const St*>(a.v); }
  const T* q_node() const { return static_cast<const T*>(a.q_node); }
  const T* q_modal() const { return static_cast<const T*>(a.q_modal); }
  const T* lambda_weight() const { return static_cast<const T*>(a.lambda_weight); }
  const T* grad_out() const { return static_cast<const T*>(a.grad_out); }
  const T* records() const { return static_cast<const T*>(a.records); }
  T* grad_k() const { return static_cast<T*>(a.grad_k); }
  T* grad_v() const { return static_cast<T*>(a.grad_v); }
  T* grad_q_node() const { return static_cast<T*>(a.grad_q_node); }
  T* grad_q_modal() const { return static_cast<T*>(a.grad_q_modal); }

  // Three rows a destination are in flight, so fewer destinations fill the queue of misses.
  static constexpr int64_t kSourceAhead = 6;

  const Args& a;
  const Plan<T> plan;
  const Shape& s;
  const CrossModalMode& mode;
  const RecordLayout& at;
  const std::unique_ptr<EdgeMath<T>> steps;
  const EdgeMath<T>& math;
  const Index in, src, out_t, dst;
  const int64_t num_edges, stats_size;
};

template <class St, int D8>
int run_shape(const Args& a, bool backward) {
  CrossModal<St, D8> op(a, backward);
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
  if (a.M < 1 || a.M > kMaxModalities || a.combine < kProduct || a.combine > kSharp) return kUnknownOption;
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

HGMM_API int hgmm_cross_modal_forward(const hgmm::Args* args) { return hgmm::run(*args, false); }
HGMM_API int hgmm_cross_modal_backward(const hgmm::Args* args) { return hgmm::run(*args, true); }

// Numbers of one destination's record, which the caller allocates for the backward pass.
HGMM_API int64_t hgmm_cross_modal_record_size(int M, int H, int lambda) {
  return hgmm::RecordLayout(hgmm::Shape(M, H, 1), lambda != 0).size;
}
