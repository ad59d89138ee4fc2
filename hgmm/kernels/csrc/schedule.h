// How rows are shared out among threads.
//
// Work is cut by edges and not by rows, so a few long rows do not hold up the others. Rows of up to `limit` edges are
// done whole by one thread; longer ones are cut into segments whose number depends on their length alone, and the
// segments' results are combined in order. So no result depends on the number of threads, and nothing is added
// atomically.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "api.h"
#include "memory.h"
#include "rows.h"

namespace hgmm {

// Memory of one thread, handed out in pieces aligned to cache lines and given back as a whole.
class Scratch {
 public:
  explicit Scratch(int64_t bytes) : data_(static_cast<char*>(std::malloc(size_t(bytes + 64)))) {
    next_ = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(data_) + 63) / 64 * 64);
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  bool ok() const { return data_ != nullptr; }

  // Room for `count` numbers and for the lanes of a vector that reaches past the last.
  template <class T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(next_);
    next_ += bytes_of<T>(count);
    return piece;
  }

  template <class T>
  static int64_t bytes_of(int64_t count) {
    return ((count + 8) * int64_t(sizeof(T)) + 63) / 64 * 64 + kSkew;
  }

 private:
  // Rows are mostly short, so only the first lines of each piece are in use: they must not all meet in the same sets of
  // the cache.
  static constexpr int64_t kSkew = 9 * 64;

  char* data_;
  char* next_;
};

constexpr int64_t kMaxSegments = 256;

// The parts of a long row: equal but for the last.
struct Segments {
  int64_t begin, end, length, count;
  Segments(int64_t begin_, int64_t end_, int64_t limit) : begin(begin_), end(end_) {
    count = std::min(kMaxSegments, (end - begin + limit - 1) / limit);
    length = (end - begin + count - 1) / count;
    count = (end - begin + length - 1) / length;
  }
  int64_t first(int64_t s) const { return begin + s * length; }
  int64_t last(int64_t s) const { return std::min(end, begin + (s + 1) * length); }
};

// First row whose edges and predecessors together number at least `work`.
inline int64_t row_at_work(Index indptr, int64_t num_rows, int64_t work) {
  int64_t low = 0, high = num_rows;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (indptr[middle] + middle < work) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Rows of more than `limit` edges. Each holds a multiple of `limit`, so only those edges are looked up.
inline std::vector<int64_t> long_rows(Index indptr, int64_t num_rows, int64_t limit) {
  std::vector<int64_t> rows;
  const int64_t num_edges = num_rows ? indptr[num_rows] : 0;
  for (int64_t e = 0; e < num_edges; e += limit) {
    int64_t low = 0, high = num_rows - 1;  // the last row that starts at or before e
    while (low < high) {
      const int64_t middle = (low + high + 1) / 2;
      if (indptr[middle] <= e) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    if (indptr[low + 1] - indptr[low] > limit && (rows.empty() || rows.back() != low)) rows.push_back(low);
  }
  return rows;
}

// Calls body(first_row, last_row, workspace) for runs of rows that cover all; the body leaves out the long ones.
// A Workspace is made once a thread from `plan` and says by ok() whether it got its memory; so does the result.
template <class Workspace, class Plan, class Body>
bool for_rows(Index indptr, int64_t num_rows, int threads, const Plan& plan, Body body) {
  if (num_rows == 0) return true;
  const int64_t work = indptr[num_rows] + num_rows;
  const int64_t chunk = std::clamp<int64_t>(work / (int64_t{threads} * 16), 128, 4096);
  const int64_t chunks = (work + chunk - 1) / chunk;
  threads = int(std::min<int64_t>(threads, chunks));
  bool ok = true;
#pragma omp parallel num_threads(threads) reduction(&& : ok)
  {
    Workspace workspace(plan);
    ok = workspace.ok();
#pragma omp for schedule(dynamic, 1)
    for (int64_t c = 0; c < chunks; ++c) {
      if (!workspace.ok()) continue;
      const int64_t last = c + 1 == chunks ? num_rows : row_at_work(indptr, num_rows, (c + 1) * chunk);
      body(row_at_work(indptr, num_rows, c * chunk), last, workspace);
    }
  }
  return ok;
}

// Calls body(segment, workspace) for every segment of a long row.
template <class Workspace, class Plan, class Body>
bool for_segments(const Segments& segments, int threads, const Plan& plan, Body body) {
  threads = int(std::min<int64_t>(threads, segments.count));
  bool ok = true;
#pragma omp parallel num_threads(threads) reduction(&& : ok)
  {
    Workspace workspace(plan);
    ok = workspace.ok();
#pragma omp for schedule(dynamic, 1)
    for (int64_t s = 0; s < segments.count; ++s) {
      if (workspace.ok()) body(s, workspace);
    }
  }
  return ok;
}

}  // namespace hgmm
