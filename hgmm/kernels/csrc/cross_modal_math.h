// The numbers of cross_modal_attention by edge, modality and head: everything between the dot products and the sums of
// rows. The operator's README has the equations.
#pragma once

#include <memory>
#include <type_traits>

#include "schedule.h"
#include "softmax.h"

namespace hgmm {

enum Combine : int { kProduct = 0, kSum = 1, kB1 = 2, kPoster = 3, kSharp = 4 };

// What is computed, fixed for a call.
struct CrossModalMode {
  Combine combine;
  bool masked, uniform_nodes, uniform_modalities;
  bool uses_u;    // the modalities' disagreement enters
  bool uses_b2;   // through a softmax over the row
  bool in_logs;   // b1 is formed as a logarithm, for rows whose weights may underflow
  bool softmaxed; // beta is a softmax of w
  bool reads_g;   // the logits of the inter-node attention enter
  double gamma;

  CrossModalMode(Combine combine_, bool align, double gamma_, bool masked_, bool uniform_nodes_,
                 bool uniform_modalities_)
      : combine(combine_), masked(masked_), uniform_nodes(uniform_nodes_), uniform_modalities(uniform_modalities_),
        uses_u(align && combine_ != kB1), uses_b2(align && combine_ != kB1 && combine_ != kSharp),
        in_logs(combine_ == kSharp || (combine_ == kB1 && masked_)), softmaxed(combine_ != kB1 || masked_),
        reads_g(uses_u || !uniform_nodes_), gamma(gamma_) {}
};

// What the passes know of a destination: [A R D C] by modality and head, [U P C2 C3] by head, [L] by modality and head.
// A, R, U, P: logarithms of the softmaxes' sums, R by head alone without a mask; D = <dL/dout, out>; C, C2, C3: the backward's sums over the row;
// L = dL/dlambda_sum, only if there is one.
struct RecordLayout {
  int A, R, D, C, U, P, C2, C3, L, size;
  RecordLayout(const Shape& shape, bool lambda)
      : A(0), R(shape.S), D(2 * shape.S), C(3 * shape.S), U(4 * shape.S), P(U + shape.Hp), C2(P + shape.Hp),
        C3(C2 + shape.Hp), L(C3 + shape.Hp), size(L + (lambda ? shape.S : 0)) {}
};

// Some edges of one row: numbers by edge, modality and head (S of them an edge) or by edge and head (Hp).
template <class T>
struct Tile {
  int64_t n;             // edges
  int64_t* node;         // the other end
  int64_t* offset;       // of its rows
  uint8_t* bits;         // modalities of the source
  const T** record;      // of the destination
  T *g, *t;              // logits of both attentions
  T *alpha, *lambda;
  T* share;              // alpha lambda / b1, where b1 is formed as a logarithm
  T *u, *b1, *b2, *a, *w;
  T* rho;                // weight of the values: by head without a mask, by modality and head with one
  T *dv, *dw, *db2, *y;  // backward only

  static int64_t bytes(const Shape& shape, int64_t edges, bool backward) {
    const int64_t by_modality = Scratch::bytes_of<T>(edges * shape.S), by_head = Scratch::bytes_of<T>(edges * shape.Hp);
    return 3 * Scratch::bytes_of<int64_t>(edges) + Scratch::bytes_of<uint8_t>(edges) +
           (backward ? 8 : 6) * by_modality + (backward ? 7 : 5) * by_head;
  }

  Tile(Scratch& scratch, const Shape& shape, int64_t edges, bool backward) : n(0) {
    node = scratch.take<int64_t>(edges);
    offset = scratch.take<int64_t>(edges);
    record = scratch.take<const T*>(edges);
    bits = scratch.take<uint8_t>(edges);
    for (T** x : {&g, &t, &alpha, &lambda, &share, &rho}) *x = scratch.take<T>(edges * shape.S);
    for (T** x : {&u, &b1, &b2, &a, &w}) *x = scratch.take<T>(edges * shape.Hp);
    dv = y = dw = db2 = nullptr;
    if (backward) {
      for (T** x : {&dv, &y}) *x = scratch.take<T>(edges * shape.S);
      for (T** x : {&dw, &db2}) *x = scratch.take<T>(edges * shape.Hp);
    }
  }
};

// The weights of the values: by modality and head with a mask, else by head.
inline WeightLayout rho_layout(const Shape& shape, const CrossModalMode& mode) {
  return mode.masked ? WeightLayout{shape.S, shape.Hp, 1} : WeightLayout{shape.Hp, 0, 1};
}

// The steps between dot products and sums of rows; compiled apart for the usual sizes.
template <class T>
class EdgeMath {
 public:
  virtual ~EdgeMath() = default;

  // u = -(mean of |g_m - g_m'| over the pairs that the source has), 0 without a pair.
  virtual void disagreement(Tile<T>& tile) const = 0;

  // Maxima and sums of alpha's softmax (max, sum: S lanes) and of b2's (Hp lanes). Leaves exp(g - max) in tile.alpha
  // and exp(u - max) in tile.b2.
  virtual void row_statistics(Tile<T>& tile, T* max, T* sum, T* u_max, T* u_sum) const = 0;

  // lambda, b1 (or its logarithm in tile.w), alpha and b2, from the logits and the destinations' records. With `fresh`,
  // alpha and b2 are what row_statistics has left, to be multiplied by alpha_scale (S) and b2_scale (Hp).
  virtual void weights(Tile<T>& tile, bool fresh, const T* alpha_scale, const T* b2_scale, bool need_alpha) const = 0;

  // Adds exp(b1) over the row, for the softmax of `poster`; b1 lies in [0, 1].
  virtual void poster_statistics(Tile<T>& tile, T* sum) const = 0;

  // w of the operator's table; -inf for a source without any modality.
  virtual void edge_logits(Tile<T>& tile) const = 0;

  // Maxima and sums of the softmax of w; leaves exp(w - max) in tile.rho.
  virtual void value_statistics(Tile<T>& tile, T* max, T* sum) const = 0;

  // rho from the destinations' records.
  virtual void known_values(Tile<T>& tile) const = 0;

  // dw and, from it, y = alpha lambda db1 and db2; for poster db1 waits for C3 and tile.dw becomes da.
  virtual void gradient_parts(Tile<T>& tile) const = 0;

  // Adds the row's sums C2 = sum b2 db2 and, for poster, C3 = sum a da.
  virtual void reduce_parts(const Tile<T>& tile, T* c2, T* c3) const = 0;

  // Poster's y, once C3 is known.
  virtual void poster_parts(Tile<T>& tile) const = 0;

  // Adds C = sum of y over the row.
  virtual void reduce_y(const Tile<T>& tile, T* c) const = 0;

  // dg into tile.alpha and dt into tile.lambda. lambda_weight: (nodes, M) by tile.node, the one row of all edges, or
  // null.
  virtual void logit_gradients(Tile<T>& tile, const T* lambda_weight, bool weight_by_node) const = 0;

  // Adds lambda_weight * lambda over the edges.
  virtual void add_lambda(const Tile<T>& tile, const T* lambda_weight, T* sum) const = 0;
};

// M and Hp as constants, so that loops over them unroll and their numbers stay in registers.
template <int KM, int KHp>
struct FixedSizes {
  static constexpr int M = KM, Hp = KHp, S = KM * KHp;
  explicit FixedSizes(const Shape&) {}
};

struct AnySizes {
  const int M, Hp, S;
  explicit AnySizes(const Shape& shape) : M(shape.M), Hp(shape.Hp), S(shape.S) {}
};

template <class T, class Sizes>
class EdgeMathOf final : public EdgeMath<T> {
 public:
  EdgeMathOf(const Shape& shape, const CrossModalMode& mode, const RecordLayout& layout)
      : s(shape), shape(shape), mode(mode), at(layout) {}

  void disagreement(Tile<T>& tile) const override {
    if (!mode.uses_u) return;
    for (int64_t e = 0; e < tile.n; ++e) {
      const int bits = tile.bits[e];
      const T scale = minus_pair_scale(bits);
      for (int h = 0; h < s.Hp; h += 4) {
        const T* g = tile.g + e * s.S + h;
        V4<T> total{};
        for (int a = 0; a < s.M; ++a) {
          if (!(bits >> a & 1)) continue;
          for (int b = a + 1; b < s.M; ++b) {
            if (bits >> b & 1) total += vabs(load4(g + a * s.Hp) - load4(g + b * s.Hp));
          }
        }
        store4(tile.u + e * s.Hp + h, total * scale);
      }
    }
  }

  void row_statistics(Tile<T>& tile, T* max, T* sum, T* u_max, T* u_sum) const override {
    Softmax<T>::clear(max, sum, s.S);
    Softmax<T>::clear(u_max, u_sum, s.Hp);
    for (int64_t e = 0; e < tile.n; ++e) {
      const int bits = tile.bits[e];
      for (int m = 0; m < s.M; ++m) {
        if (!(bits >> m & 1)) continue;
        for (int h = 0; h < s.Hp; h += 4) raise(max + m * s.Hp + h, node_logit(tile, e, m, h));
      }
      if (mode.uses_b2 && bits) {
        for (int h = 0; h < s.Hp; h += 4) raise(u_max + h, load4(tile.u + e * s.Hp + h));
      }
    }
    for (int64_t e = 0; e < tile.n; ++e) {
      const int bits = tile.bits[e];
      for (int m = 0; m < s.M; ++m) {
        for (int h = 0; h < s.Hp; h += 4) {
          const int i = m * s.Hp + h;
          const V4<T> x = node_logit(tile, e, m, h) - load4(max + i);
          store4(tile.alpha + e * s.S + i, bits >> m & 1 ? x : splat4(kMinusInfinity<T>));
        }
      }
      if (mode.uses_b2) {
        for (int h = 0; h < s.Hp; h += 4) {
          const V4<T> x = load4(tile.u + e * s.Hp + h) - load4(u_max + h);
          store4(tile.b2 + e * s.Hp + h, bits ? x : splat4(kMinusInfinity<T>));
        }
      }
    }
    exp_all(tile.alpha, tile.n * s.S);
    if (mode.uses_b2) exp_all(tile.b2, tile.n * s.Hp);
    add_up(tile.alpha, tile.n, s.S, sum);
    if (mode.uses_b2) add_up(tile.b2, tile.n, s.Hp, u_sum);
  }

  void weights(Tile<T>& tile, bool fresh, const T* alpha_scale, const T* b2_scale, bool need_alpha) const override {
    const bool exp_alpha = !fresh && (need_alpha || !mode.in_logs);
    for (int64_t e = 0; e < tile.n; ++e) {
      const int bits = tile.bits[e];
      const T* record = tile.record[e];
      for (int h = 0; h < s.Hp; h += 4) {
        V4<T> top = splat4(kMinusInfinity<T>);
        for (int m = 0; m < s.M; ++m) {
          if (bits >> m & 1) top = vmax(top, modal_logit(tile, e, m, h));
        }
        for (int m = 0; m < s.M; ++m) {
          const int i = m * s.Hp + h;
          const bool has = bits >> m & 1;
          const V4<T> x = has ? modal_logit(tile, e, m, h) - top : splat4(kMinusInfinity<T>);
          store4(tile.lambda + e * s.S + i, x);
          if (exp_alpha || mode.in_logs) {
            // Subtracted where there is no logit, too: a row's NaN then reaches all its edges, as in other softmaxes.
            const V4<T> y = (has ? node_logit(tile, e, m, h) : splat4(kMinusInfinity<T>)) - load4(record + at.A + i);
            if (exp_alpha) store4(tile.alpha + e * s.S + i, y);
            if (mode.in_logs) store4(tile.share + e * s.S + i, x + y);
          }
        }
        if (mode.uses_b2 && !fresh) {
          const V4<T> x = load4(tile.u + e * s.Hp + h) - load4(record + at.U + h);
          store4(tile.b2 + e * s.Hp + h, bits ? x : splat4(kMinusInfinity<T>));
        }
      }
    }
    exp_all(tile.lambda, tile.n * s.S);
    if (exp_alpha) exp_all(tile.alpha, tile.n * s.S);
    if (mode.uses_b2 && !fresh) exp_all(tile.b2, tile.n * s.Hp);
    if (mode.in_logs) {
      join_in_logs(tile);
    } else {
      join(tile, fresh ? alpha_scale : nullptr);
    }
    if (mode.uses_b2 && fresh) {
      for (int64_t e = 0; e < tile.n; ++e) {
        for (int h = 0; h < s.Hp; h += 4) {
          store4(tile.b2 + e * s.Hp + h, load4(tile.b2 + e * s.Hp + h) * load4(b2_scale + h));
        }
      }
    }
  }

  void poster_statistics(Tile<T>& tile, T* sum) const override {
    for (int64_t i = 0; i < tile.n * s.Hp; i += 8) store8(tile.a + i, vexp(load8(tile.b1 + i)));
    for (int64_t e = 0; e < tile.n; ++e) {
      if (!tile.bits[e]) continue;
      for (int h = 0; h < s.Hp; h += 4) store4(sum + h, load4(sum + h) + load4(tile.a + e * s.Hp + h));
    }
  }

  void edge_logits(Tile<T>& tile) const override {
    if (mode.combine == kPoster) poster_softmax(tile);
    const T* b1 = mode.combine == kPoster ? tile.a : tile.b1;
    for (int64_t i = 0; i < tile.n * s.Hp; i += 8) {
      if (mode.in_logs) {
        if (mode.uses_u) store8(tile.w + i, load8(tile.w + i) + T(mode.gamma) * load8(tile.u + i));
      } else if (!mode.uses_b2) {
        store8(tile.w + i, load8(b1 + i));
      } else if (mode.combine == kSum) {
        store8(tile.w + i, load8(b1 + i) + load8(tile.b2 + i));
      } else {
        store8(tile.w + i, load8(b1 + i) * load8(tile.b2 + i));
      }
    }
    if (!mode.masked) return;
    for (int64_t e = 0; e < tile.n; ++e) {
      if (tile.bits[e]) continue;
      for (int h = 0; h < s.Hp; h += 4) store4(tile.w + e * s.Hp + h, splat4(kMinusInfinity<T>));
    }
  }

  void value_statistics(Tile<T>& tile, T* max, T* sum) const override {
    const int lanes = rho_layout(shape, mode).edge;
    Softmax<T>::clear(max, sum, lanes);
    if (!mode.softmaxed) {
      std::memcpy(tile.rho, tile.b1, size_t(tile.n * s.Hp) * sizeof(T));
      return;
    }
    for (int64_t e = 0; e < tile.n; ++e) {
      for (int m = 0; m < groups(); ++m) {
        if (!has_value(tile, e, m)) continue;
        for (int h = 0; h < s.Hp; h += 4) raise(max + m * s.Hp + h, load4(tile.w + e * s.Hp + h));
      }
    }
    value_weights(tile, max);
    add_up(tile.rho, tile.n, lanes, sum);
  }

  void known_values(Tile<T>& tile) const override {
    if (mode.softmaxed) {
      value_weights(tile, nullptr);
    } else {
      std::memcpy(tile.rho, tile.b1, size_t(tile.n * s.Hp) * sizeof(T));
    }
  }

  void gradient_parts(Tile<T>& tile) const override {
    const WeightLayout layout = rho_layout(shape, mode);
    for (int64_t e = 0; e < tile.n; ++e) {
      const T* record = tile.record[e];
      for (int h = 0; h < s.Hp; h += 4) {
        // Without a softmax of w nothing else brings the weight's NaN to its gradient.
        V4<T> dw = mode.softmaxed ? V4<T>{} : T(0) * load4(tile.b1 + e * s.Hp + h);
        for (int m = 0; m < s.M; ++m) {
          const int i = m * s.Hp + h;
          const V4<T> d = load4(tile.dv + e * s.S + i);
          if (mode.softmaxed) {
            dw += load4(tile.rho + e * layout.edge + m * layout.modality + h) * (d - load4(record + at.D + i));
          } else {
            dw += d;
          }
        }
        store4(tile.dw + e * s.Hp + h, dw);
        if (mode.uses_b2) {
          const T* b1 = mode.combine == kPoster ? tile.a : tile.b1;
          const V4<T> one = splat4(T(1));
          const V4<T> b2 = mode.combine == kSum ? one : load4(tile.b2 + e * s.Hp + h);
          store4(tile.db2 + e * s.Hp + h, dw * (mode.combine == kSum ? one : load4(b1 + e * s.Hp + h)));
          dw *= b2;
        }
        if (mode.combine == kPoster) {
          store4(tile.dw + e * s.Hp + h, dw);
        } else {
          spread(tile, e, h, dw);
        }
      }
    }
  }

  void reduce_parts(const Tile<T>& tile, T* c2, T* c3) const override {
    for (int64_t e = 0; e < tile.n; ++e) {
      for (int h = 0; h < s.Hp; h += 4) {
        const int64_t i = e * s.Hp + h;
        if (mode.uses_b2) store4(c2 + h, load4(c2 + h) + load4(tile.b2 + i) * load4(tile.db2 + i));
        if (mode.combine == kPoster) store4(c3 + h, load4(c3 + h) + load4(tile.a + i) * load4(tile.dw + i));
      }
    }
  }

  void poster_parts(Tile<T>& tile) const override {
    for (int64_t e = 0; e < tile.n; ++e) {
      for (int h = 0; h < s.Hp; h += 4) {
        const int64_t i = e * s.Hp + h;
        spread(tile, e, h, load4(tile.a + i) * (load4(tile.dw + i) - load4(tile.record[e] + at.C3 + h)));
      }
    }
  }

  void reduce_y(const Tile<T>& tile, T* c) const override { add_up(tile.y, tile.n, s.S, c); }

  void logit_gradients(Tile<T>& tile, const T* lambda_weight, bool weight_by_node) const override {
    for (int64_t e = 0; e < tile.n; ++e) {
      const T* record = tile.record[e];
      const T* weight = lambda_weight ? lambda_weight + (weight_by_node ? tile.node[e] * s.M : 0) : nullptr;
      for (int h = 0; h < s.Hp; h += 4) {
        node_gradient(tile, e, h, record);
        modal_gradient(tile, e, h, record, weight);
      }
    }
  }

  void add_lambda(const Tile<T>& tile, const T* lambda_weight, T* sum) const override {
    for (int64_t e = 0; e < tile.n; ++e) {
      for (int m = 0; m < s.M; ++m) {
        const T weight = lambda_weight[tile.node[e] * s.M + m];
        for (int i = m * s.Hp; i < (m + 1) * s.Hp; i += 4) {
          store4(sum + i, load4(sum + i) + weight * load4(tile.lambda + e * s.S + i));
        }
      }
    }
  }

  static void add_up(const T* x, int64_t edges, int lanes, T* sum) {
    for (int64_t e = 0; e < edges; ++e) {
      for (int i = 0; i < lanes; i += 4) store4(sum + i, load4(sum + i) + load4(x + e * lanes + i));
    }
  }

 private:
  static void raise(T* max, V4<T> x) { store4(max, vmax(load4(max), x)); }

  T minus_pair_scale(int bits) const {
    const int present = __builtin_popcount(unsigned(bits));
    return present > 1 ? T(-2) / T(present * (present - 1)) : T(0);
  }

  V4<T> node_logit(const Tile<T>& tile, int64_t e, int m, int h) const {
    return mode.uniform_nodes ? V4<T>{} : load4(tile.g + e * s.S + m * s.Hp + h);
  }

  V4<T> modal_logit(const Tile<T>& tile, int64_t e, int m, int h) const {
    return mode.uniform_modalities ? V4<T>{} : load4(tile.t + e * s.S + m * s.Hp + h);
  }

  // Softmaxes of w a head: one for each modality with a mask.
  int groups() const { return mode.masked ? s.M : 1; }

  bool has_value(const Tile<T>& tile, int64_t e, int m) const { return !mode.masked || (tile.bits[e] >> m & 1); }

  // lambda and b1 = sum lambda alpha.
  void join(Tile<T>& tile, const T* alpha_scale) const {
    for (int64_t e = 0; e < tile.n; ++e) {
      for (int h = 0; h < s.Hp; h += 4) {
        V4<T> total{}, b1{};
        for (int m = 0; m < s.M; ++m) total += load4(tile.lambda + e * s.S + m * s.Hp + h);
        const V4<T> scale = total == 0 ? splat4(T(0)) : T(1) / total;
        for (int m = 0; m < s.M; ++m) {
          const int i = m * s.Hp + h;
          const V4<T> lambda = load4(tile.lambda + e * s.S + i) * scale;
          V4<T> alpha = load4(tile.alpha + e * s.S + i);
          if (alpha_scale) alpha *= load4(alpha_scale + i);
          store4(tile.lambda + e * s.S + i, lambda);
          b1 += lambda * alpha;
        }
        store4(tile.b1 + e * s.Hp + h, b1);
      }
    }
  }

  // lambda, share = alpha lambda / b1 and w = log b1, from lambda's exponentials and log alpha + t - max t in share.
  void join_in_logs(Tile<T>& tile) const {
    for (int64_t e = 0; e < tile.n; ++e) {
      for (int h = 0; h < s.Hp; h += 4) {
        V4<T> total{}, top = splat4(kMinusInfinity<T>);
        for (int m = 0; m < s.M; ++m) {
          total += load4(tile.lambda + e * s.S + m * s.Hp + h);
          top = vmax(top, load4(tile.share + e * s.S + m * s.Hp + h));
        }
        const V4<T> scale = total == 0 ? splat4(T(0)) : T(1) / total, zero = finite_or_zero<T>(top);
        for (int m = 0; m < s.M; ++m) {
          const int i = m * s.Hp + h;
          store4(tile.lambda + e * s.S + i, load4(tile.lambda + e * s.S + i) * scale);
          store4(tile.share + e * s.S + i, load4(tile.share + e * s.S + i) - zero);
        }
        store4(tile.b1 + e * s.Hp + h, scale);
        store4(tile.w + e * s.Hp + h, top);
      }
    }
    exp_all(tile.share, tile.n * s.S);
    for (int64_t e = 0; e < tile.n; ++e) {
      for (int h = 0; h < s.Hp; h += 4) {
        V4<T> total{};
        for (int m = 0; m < s.M; ++m) total += load4(tile.share + e * s.S + m * s.Hp + h);
        const V4<T> scale = total == 0 ? splat4(T(0)) : T(1) / total;
        for (int m = 0; m < s.M; ++m) {
          const int64_t i = e * s.S + m * s.Hp + h;
          store4(tile.share + i, load4(tile.share + i) * scale);
        }
        const V4<T> ratio = total * load4(tile.b1 + e * s.Hp + h);
        store4(tile.b1 + e * s.Hp + h, ratio == 0 ? splat4(T(1)) : ratio);
      }
    }
    log_all(tile.b1, tile.n * s.Hp);
    for (int64_t i = 0; i < tile.n * s.Hp; i += 8) store8(tile.w + i, load8(tile.w + i) + load8(tile.b1 + i));
  }

  // a = softmax of b1 over the row, from the records.
  void poster_softmax(Tile<T>& tile) const {
    for (int64_t e = 0; e < tile.n; ++e) {
      for (int h = 0; h < s.Hp; h += 4) {
        const V4<T> x = load4(tile.b1 + e * s.Hp + h) - load4(tile.record[e] + at.P + h);
        store4(tile.a + e * s.Hp + h, tile.bits[e] ? x : splat4(kMinusInfinity<T>));
      }
    }
    exp_all(tile.a, tile.n * s.Hp);
  }

  // exp(w - max) into tile.rho; the records' R stands for max if there is none.
  void value_weights(Tile<T>& tile, const T* max) const {
    const int lanes = rho_layout(shape, mode).edge;
    for (int64_t e = 0; e < tile.n; ++e) {
      const T* top = max ? max : tile.record[e] + at.R;
      for (int m = 0; m < groups(); ++m) {
        const bool has = has_value(tile, e, m);
        for (int h = 0; h < s.Hp; h += 4) {
          const V4<T> x = load4(tile.w + e * s.Hp + h) - load4(top + m * s.Hp + h);
          store4(tile.rho + e * lanes + m * s.Hp + h, has ? x : splat4(kMinusInfinity<T>));
        }
      }
    }
    exp_all(tile.rho, tile.n * lanes);
  }

  // y = alpha lambda db1, or share times dL/dlog b1.
  void spread(Tile<T>& tile, int64_t e, int h, V4<T> db1) const {
    for (int m = 0; m < s.M; ++m) {
      const int64_t i = e * s.S + m * s.Hp + h;
      const V4<T> part = mode.in_logs ? load4(tile.share + i) : load4(tile.alpha + i) * load4(tile.lambda + i);
      store4(tile.y + i, part * db1);
    }
  }

  void node_gradient(Tile<T>& tile, int64_t e, int h, const T* record) const {
    const int bits = tile.bits[e];
    V4<T> du{};
    if (mode.uses_b2) {
      const int64_t i = e * s.Hp + h;
      du = load4(tile.b2 + i) * (load4(tile.db2 + i) - load4(record + at.C2 + h));
    } else if (mode.uses_u) {
      du = T(mode.gamma) * load4(tile.dw + e * s.Hp + h);
    }
    du *= minus_pair_scale(bits);
    const bool has_pair = bits & (bits - 1);
    const V4<T> zero{}, one = splat4(T(1));
    for (int m = 0; m < s.M; ++m) {
      const int i = m * s.Hp + h;
      V4<T> dg{};
      if (!mode.uniform_nodes) {
        dg = load4(tile.y + e * s.S + i) - load4(tile.alpha + e * s.S + i) * load4(record + at.C + i);
      }
      if (mode.uses_u && has_pair && (bits >> m & 1)) {
        const V4<T> g = load4(tile.g + e * s.S + i);
        V4<T> sign{};
        for (int other = 0; other < s.M; ++other) {
          if (other == m || !(bits >> other & 1)) continue;
          const V4<T> x = load4(tile.g + e * s.S + other * s.Hp + h);
          sign += (g > x ? one : zero) - (g < x ? one : zero);
        }
        dg += du * sign;
      }
      store4(tile.alpha + e * s.S + i, dg);
    }
  }

  void modal_gradient(Tile<T>& tile, int64_t e, int h, const T* record, const T* weight) const {
    V4<T> total{};
    for (int m = 0; m < s.M; ++m) {
      const int i = m * s.Hp + h;
      V4<T> z = load4(tile.y + e * s.S + i);
      if (weight) z += load4(tile.lambda + e * s.S + i) * (weight[m] * load4(record + at.L + i));
      store4(tile.y + e * s.S + i, z);
      total += z;
    }
    for (int m = 0; m < s.M; ++m) {
      const int64_t i = e * s.S + m * s.Hp + h;
      const V4<T> dt = load4(tile.y + i) - load4(tile.lambda + i) * total;
      store4(tile.lambda + i, mode.uniform_modalities ? V4<T>{} : dt);
    }
  }

  const Sizes s;
  const Shape shape;
  const CrossModalMode mode;
  const RecordLayout at;
};

template <class T>
std::unique_ptr<EdgeMath<T>> make_edge_math(const Shape& shape, const CrossModalMode& mode,
                                            const RecordLayout& layout) {
  // float64 is for checks, not for speed.
  if constexpr (std::is_same_v<T, float>) {
    switch (shape.M * 100 + shape.Hp) {
      case 104: return std::make_unique<EdgeMathOf<T, FixedSizes<1, 4>>>(shape, mode, layout);
      case 204: return std::make_unique<EdgeMathOf<T, FixedSizes<2, 4>>>(shape, mode, layout);
      case 304: return std::make_unique<EdgeMathOf<T, FixedSizes<3, 4>>>(shape, mode, layout);
      case 108: return std::make_unique<EdgeMathOf<T, FixedSizes<1, 8>>>(shape, mode, layout);
      case 208: return std::make_unique<EdgeMathOf<T, FixedSizes<2, 8>>>(shape, mode, layout);
      case 308: return std::make_unique<EdgeMathOf<T, FixedSizes<3, 8>>>(shape, mode, layout);
      default: break;
    }
  }
  return std::make_unique<EdgeMathOf<T, AnySizes>>(shape, mode, layout);
}

}  // namespace hgmm
