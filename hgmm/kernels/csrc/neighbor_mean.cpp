// neighbor_sum and neighbor_mean on the CPU: weighted sums of the neighbours' rows, forward and backward.
//
// A row of M modalities of D numbers is seen as M x (D / width) vectors of a width that the sums are compiled for.
#include <new>
#include <type_traits>

#include "schedule.h"

namespace hgmm {
namespace {

// Mirrored by hgmm/kernels/neighbor_mean/cpu.py.
struct Args {
  int64_t num_dst, num_src;
  int32_t M, D, wide_index, storage, threads, weight_columns, mean, need_x, need_weight, padding;
  const void *indptr, *indices, *indptr_t, *indices_t, *edge_pos_t;
  const void* x;
  const uint8_t* present;
  const void* weight;  // (E, weight_columns), 1 or M columns
  void *out, *total;   // total (N_dst, M): sums of the weights, for the mean
  const void* grad_out;
  void *grad_x, *grad_weight;
};

constexpr int64_t kTileEdges = 512;
constexpr int64_t kEdgesAhead = 16;

struct Plan {
  Shape shape;
  explicit Plan(const Shape& shape_) : shape(shape_) {}
};

template <class T>
class Workspace {
 public:
  explicit Workspace(const Plan& plan)
      : scratch_(Scratch::bytes_of<int64_t>(kTileEdges) + Scratch::bytes_of<T>(kTileEdges * plan.shape.M) +
                 Scratch::bytes_of<T>(plan.shape.S) + Scratch::bytes_of<T>(plan.shape.M)) {
    if (!ok()) return;
    offset = scratch_.template take<int64_t>(kTileEdges);
    weight = scratch_.template take<T>(kTileEdges * plan.shape.M);
    dot = scratch_.template take<T>(plan.shape.S);
    total = scratch_.template take<T>(plan.shape.M);
  }
  bool ok() const { return scratch_.ok(); }

 private:
  Scratch scratch_;

 public:
  int64_t* offset = nullptr;
  T *weight = nullptr, *dot = nullptr, *total = nullptr;
};

template <class St, int D8>
class Neighbors {
  using T = typename Accumulator<St>::type;

 public:
  Neighbors(const Args& args, int width)
      : a(args), plan(Shape(a.M, a.D / width, width)), s(plan.shape), layout{s.M, 1, 0}, in(index(a.indptr)),
        src(index(a.indices)), out_t(index(a.indptr_t)), dst(index(a.indices_t)), position_t(index(a.edge_pos_t)) {}

  bool forward() {
    prefer_large_pages(a.out, a.num_dst * s.F * int64_t(sizeof(T)));
    return sum_rows(in, src, a.num_dst, x(), static_cast<T*>(a.out), static_cast<T*>(a.total),
                    [&](int64_t, int64_t e, T* w) { forward_weight(e, w); },
                    [&](int64_t, T* row, const T* total) { divide(row, total); });
  }

  bool backward() {
    if (a.need_weight && !weight_gradients()) return false;
    if (!a.need_x) return true;
    prefer_large_pages(a.grad_x, a.num_src * s.F * int64_t(sizeof(T)));
    return sum_rows(out_t, dst, a.num_src, grad_out(), static_cast<T*>(a.grad_x), nullptr,
                    [&](int64_t j, int64_t e, T* w) { backward_weight(j, e, w); },
                    [&](int64_t j, T* row, const T*) { forget_absent(s, a.present, j, row); });
  }

 private:
  // Sums the rows of the neighbours with weights that weight(row, edge, M numbers) gives; then finish(row, sum,
  // totals).
  template <class Rows, class Weight, class Finish>
  bool sum_rows(Index indptr, Index ids, int64_t num_rows, const Rows* rows, T* out, T* totals, Weight weight,
                Finish finish) {
    const int64_t num_edges = num_rows ? indptr[num_rows] : 0;
    const auto part = [&](int64_t i, int64_t begin, int64_t end, Workspace<T>& own, T* sum, T* total) {
      for (int64_t first = begin; first < end; first += kTileEdges) {
        const int64_t n = std::min(kTileEdges, end - first);
        for (int64_t e = 0; e < n; ++e) {
          if (first + e + kEdgesAhead < num_edges) prefetch_row(rows + ids[first + e + kEdgesAhead] * s.F, s.F);
          own.offset[e] = ids[first + e] * s.F;
          weight(i, first + e, own.weight + e * s.M);
          for (int m = 0; m < s.M; ++m) total[m] += own.weight[e * s.M + m];
        }
        add_rows<D8>(s, rows, own.offset, n, own.weight, layout, sum);
      }
    };
    const bool ok = for_rows<Workspace<T>>(
        indptr, num_rows, a.threads, plan, [&](int64_t first, int64_t last, Workspace<T>& own) {
          for (int64_t i = first; i < last; ++i) {
            if (indptr[i + 1] - indptr[i] > kLongRow) continue;
            clear(out + i * s.F, s.F);
            clear(own.total, s.M);
            part(i, indptr[i], indptr[i + 1], own, out + i * s.F, own.total);
            if (totals) std::memcpy(totals + i * s.M, own.total, size_t(s.M) * sizeof(T));
            finish(i, out + i * s.F, own.total);
          }
        });
    if (!ok) return false;
    for (int64_t i : long_rows(indptr, num_rows, kLongRow)) {
      const Segments segments(indptr[i], indptr[i + 1], kLongRow);
      std::vector<std::vector<T>> parts(size_t(segments.count), std::vector<T>(size_t(s.F + s.M) + 8, T(0)));
      const bool done = for_segments<Workspace<T>>(segments, a.threads, plan, [&](int64_t p, Workspace<T>& own) {
        T* sum = parts[size_t(p)].data();
        part(i, segments.first(p), segments.last(p), own, sum, sum + s.F);
      });
      if (!done) return false;
      for (size_t p = 1; p < parts.size(); ++p) add(parts[0].data(), parts[p].data(), s.F + s.M);
      std::memcpy(out + i * s.F, parts[0].data(), size_t(s.F) * sizeof(T));
      if (totals) std::memcpy(totals + i * s.M, parts[0].data() + s.F, size_t(s.M) * sizeof(T));
      finish(i, out + i * s.F, parts[0].data() + s.F);
    }
    return true;
  }

  void forward_weight(int64_t e, T* w) const {
    const uint8_t* has = a.present ? a.present + src[e] * s.M : nullptr;
    for (int m = 0; m < s.M; ++m) w[m] = has && !has[m] ? T(0) : edge_weight(e, m);
  }

  void backward_weight(int64_t j, int64_t e, T* w) const {
    const uint8_t* has = a.present ? a.present + j * s.M : nullptr;
    for (int m = 0; m < s.M; ++m) {
      w[m] = has && !has[m] ? T(0) : edge_weight(position_t[e], m) * share(dst[e], m);
    }
  }

  void divide(T* row, const T* total) const {
    if (!a.mean) return;
    const int64_t D = int64_t{s.H} * s.D;
    for (int m = 0; m < s.M; ++m) {
      const T factor = total[m] != 0 ? T(1) / total[m] : T(0);
      for (int64_t d = 0; d < D; ++d) row[m * D + d] *= factor;
    }
  }

  // Of one destination's sum in its mean; 0 where the weights cancel.
  T share(int64_t i, int m) const {
    if (!a.mean) return T(1);
    const T total = static_cast<const T*>(a.total)[i * s.M + m];
    return total != 0 ? T(1) / total : T(0);
  }

  T edge_weight(int64_t e, int m) const {
    if (!a.weight) return T(1);
    return static_cast<const T*>(a.weight)[a.weight_columns == 1 ? e : e * s.M + m];
  }

  // dL/dw = p (<G, x> - <G, out>) / total for the mean, p <G, x> for the sum; each edge has one writer.
  bool weight_gradients() {
    const bool ok = for_rows<Workspace<T>>(
        in, a.num_dst, a.threads, plan, [&](int64_t first, int64_t last, Workspace<T>& own) {
          for (int64_t i = first; i < last; ++i) {
            if (in[i + 1] - in[i] <= kLongRow) weight_gradients_of(i, in[i], in[i + 1], own);
          }
        });
    if (!ok) return false;
    for (int64_t i : long_rows(in, a.num_dst, kLongRow)) {
      const Segments segments(in[i], in[i + 1], kLongRow);
      const bool done = for_segments<Workspace<T>>(segments, a.threads, plan, [&](int64_t p, Workspace<T>& own) {
        weight_gradients_of(i, segments.first(p), segments.last(p), own);
      });
      if (!done) return false;
    }
    return true;
  }

  void weight_gradients_of(int64_t i, int64_t begin, int64_t end, Workspace<T>& own) const {
    const T* grad = grad_out() + i * s.F;
    clear(own.total, s.M);
    if (a.mean) by_modality(static_cast<const T*>(a.out) + i * s.F, grad, own.dot, own.total);
    for (int64_t e = begin; e < end; ++e) {
      if (e + kEdgesAhead < in[a.num_dst]) prefetch_row(x() + src[e + kEdgesAhead] * s.F, s.F);
      const uint8_t* has = a.present ? a.present + src[e] * s.M : nullptr;
      by_modality(x() + src[e] * s.F, grad, own.dot, own.weight);
      T* out = static_cast<T*>(a.grad_weight) + e * a.weight_columns;
      if (a.weight_columns == 1) out[0] = 0;
      for (int m = 0; m < s.M; ++m) {
        const T d = has && !has[m] ? T(0) : (own.weight[m] - own.total[m]) * share(i, m);
        if (a.weight_columns == 1) {
          out[0] += d;
        } else {
          out[m] = d;
        }
      }
    }
  }

  template <class Row>
  void by_modality(const Row* row, const T* grad, T* dot, T* sums) const {
    dots<D8>(s, row, grad, dot);
    for (int m = 0; m < s.M; ++m) {
      sums[m] = 0;
      for (int h = 0; h < s.H; ++h) sums[m] += dot[m * s.Hp + h];
    }
  }

  Index index(const void* data) const { return {data, a.wide_index != 0}; }
  const St* x() const { return static_cast<const St*>(a.x); }
  const T* grad_out() const { return static_cast<const T*>(a.grad_out); }

  static constexpr int64_t kLongRow = 4096;

  const Args& a;
  const Plan plan;
  const Shape& s;
  const WeightLayout layout;
  const Index in, src, out_t, dst, position_t;
};

template <class St, int D8>
int run_width(const Args& a, bool backward, int width) {
  Neighbors<St, D8> op(a, width);
  return (backward ? op.backward() : op.forward()) ? kOk : kOutOfMemory;
}

template <class St>
int run_storage(const Args& a, bool backward) {
  // float64 is for checks, not for speed.
  if constexpr (std::is_same_v<St, double>) return run_width<St, 0>(a, backward, a.D);
  if (a.D % 64 == 0) return run_width<St, 8>(a, backward, 64);
  if (a.D % 32 == 0) return run_width<St, 4>(a, backward, 32);
  if (a.D % 16 == 0) return run_width<St, 2>(a, backward, 16);
  if (a.D % 8 == 0) return run_width<St, 1>(a, backward, 8);
  return run_width<St, 0>(a, backward, a.D);
}

int run(const Args& a, bool backward) {
  if (a.M < 1) return kUnknownOption;
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

HGMM_API int hgmm_neighbor_mean_forward(const hgmm::Args* args) { return hgmm::run(*args, false); }
HGMM_API int hgmm_neighbor_mean_backward(const hgmm::Args* args) { return hgmm::run(*args, true); }
