// Draws of entities that take the place of a triple's head or tail. hgmm/kernels/negative_sampling/README.md has the
// rules, reference.py the same in torch, with the same results.
#include <algorithm>
#include <new>
#include <vector>

#include "api.h"
#include "known_triples.h"
#include "philox.h"

namespace hgmm {
namespace {

// Mirrored by hgmm/kernels/negative_sampling/cpu.py.
struct IndexArgs {
  int64_t num_groups, num_slots;
  const int64_t *keys, *indptr, *entities;
  uint64_t* slots;
  int32_t* blocks;
};

// Mirrored by hgmm/kernels/negative_sampling/cpu.py.
struct DrawArgs {
  int64_t num_positives, K, num_entities, num_heads, num_tails, num_relations, seed, step, num_slots,
      chunk_size;
  int32_t threads, only_sides;
  const int64_t* positives;         // (B, 3)
  const int64_t* head_below;        // (R,)
  const int64_t* table;             // (levels, 2, R), null: all entities everywhere
  const int64_t *indptr, *ids;      // lists of candidates
  const int64_t* first;             // (C, K): the first attempt among all, null: drawn
  uint64_t* slots;                  // null: nothing is known
  int32_t* blocks;
  int64_t* entity;                  // (B, K)
  int8_t *side, *level;             // (B, K); level is read and lowered, null: 0
};

constexpr int64_t kWhole = -1, kNone = -1;
constexpr int64_t kFirstAttempt = 1, kMaxAttempts = 31;
// Batches whose bits are asked for before the first of them is looked at: those of large groups are not in the cache.
constexpr int kAhead = 4;
// Below so many negatives a second thread costs more than it brings.
constexpr int64_t kSerial = 4096;

// Words of one negative's stream.
class Stream {
 public:
  Stream(const DrawArgs& a, uint32_t positive, uint32_t k, const PhiloxLanes& words, int lane)
      : a_(a), positive_(positive), k_(k) {
    for (int i = 0; i < 4; ++i) word_[i] = uint32_t(words.word[i][lane]);
  }

  uint32_t operator[](int64_t index) {
    if (index / 4 != block_) {
      block_ = index / 4;
      const Philox block(positive_, k_, uint32_t(a_.step), uint32_t(block_), uint32_t(a_.seed),
                         uint32_t(uint64_t(a_.seed) >> 32));
      std::copy(block.word, block.word + 4, word_);
    }
    return word_[index % 4];
  }

 private:
  const DrawArgs& a_;
  uint32_t positive_, k_;
  int64_t block_ = 0;
  uint32_t word_[4];
};

// Candidates: given ones, or all from 0 on.
struct List {
  const int64_t* ids;
  uint32_t size, refuse_below;

  List(const int64_t* ids_, int64_t size_)
      : ids(ids_), size(uint32_t(size_)), refuse_below(size ? (0u - size) % size : 0) {}

  int64_t operator[](int64_t place) const { return ids ? ids[place] : place; }

  // Lemire, ACM TOMACS 2019: multiply-shift, refusing the words that would make some places likelier.
  bool choose(uint32_t word, int64_t* place) const {
    const uint64_t product = uint64_t{word} * size;
    *place = int64_t(product >> 32);
    return uint32_t(product) >= refuse_below && size;
  }
};

struct Positive {
  int64_t row, relation;
  int64_t own[2];
  uint64_t key[2];
  Group group[2];
  Sieve sieve[2];

  bool excludes(int side, int64_t entity) const { return entity == own[side] || group[side].contains(entity); }
};

// Positives whose groups are asked for together, so that their cache misses overlap.
struct Tile {
  static constexpr int64_t kPositives = 16;

  int64_t begin, end;
  Positive positives[kPositives];

  Positive& of(int64_t row) { return positives[row - begin]; }
  const Positive& of(int64_t row) const { return positives[row - begin]; }
};

// Negatives whose words are drawn together.
struct Batch {
  static constexpr int kLanes = PhiloxLanes::kLanes;

  int64_t first;
  int lanes;
  uint32_t row[kLanes], k[kLanes], place[kLanes];
  int8_t side[kLanes];
  bool refused[kLanes];
  PhiloxLanes words;
};

// Candidates that are not excluded, kept for the negatives of a positive that need them.
class Complement {
 public:
  const std::vector<int64_t>& of(const Positive& positive, int side, int64_t pool, const List& list) {
    if (row_ == positive.row && pool_ == pool) return left_;
    row_ = positive.row;
    pool_ = pool;
    left_.clear();
    const Group& group = positive.group[side];
    int64_t known = 0;
    for (int64_t place = 0; place < list.size; ++place) {
      const int64_t entity = list[place];
      while (known < group.count() && group.entity(known) < entity) ++known;
      if (entity == positive.own[side] || (known < group.count() && group.entity(known) == entity)) continue;
      left_.push_back(entity);
    }
    return left_;
  }

 private:
  int64_t row_ = -1, pool_ = kWhole;
  std::vector<int64_t> left_;
};

class Sampler {
 public:
  explicit Sampler(const DrawArgs& args)
      : a(args), known_(a.slots, a.blocks, a.slots ? a.num_slots : 1), all_{{nullptr, a.num_heads}, {nullptr, a.num_tails}} {}

  // Returns the first negative without an entity, or the number of negatives; -1 if there was no memory.
  int64_t run() {
    const int64_t tiles = (a.num_positives + Tile::kPositives - 1) / Tile::kPositives, total = a.num_positives * a.K;
    int64_t failed = total;
    bool ok = true;
    const int threads = total < kSerial ? 1 : int(std::min<int64_t>(a.threads, tiles));
#pragma omp parallel num_threads(threads) reduction(min : failed) reduction(&& : ok)
    {
      Complement left[2];
      Tile tile;
#pragma omp for schedule(dynamic, 4)
      for (int64_t t = 0; t < tiles; ++t) {
        // Nothing may be thrown out of a parallel region.
        try {
          tile.begin = t * Tile::kPositives;
          tile.end = std::min(a.num_positives, tile.begin + Tile::kPositives);
          failed = std::min(failed, work_off(tile, left));
        } catch (const std::bad_alloc&) {
          ok = false;
        }
      }
    }
    return ok ? failed : -1;
  }

 private:
  int64_t work_off(Tile& tile, Complement* left) const {
    for (int64_t i = tile.begin; i < tile.end; ++i) set(i, tile.of(i));
    if (!a.only_sides) look_up(tile.positives, tile.end - tile.begin);
    int64_t failed = a.num_positives * a.K;
    Batch batches[kAhead];
    for (int i = 0; i < kAhead; ++i) prepare(tile.begin * a.K + i * Batch::kLanes, tile, batches[i]);
    for (int64_t n = 0; batches[n % kAhead].lanes > 0; ++n) {
      Batch& batch = batches[n % kAhead];
      for (uint32_t rest = attempt(batch, tile); rest; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        const int64_t i = batch.first + lane;
        Stream stream(a, batch.row[lane], batch.k[lane], batch.words, lane);
        const int side = batch.side[lane];
        int8_t* level = a.level ? a.level + i : nullptr;
        a.entity[i] = draw(tile.of(batch.row[lane]), side, level, batch.place[lane], stream, left[side]);
        if (a.entity[i] == kNone) failed = std::min(failed, i);
      }
      prepare(batch.first + kAhead * Batch::kLanes, tile, batch);
    }
    return failed;
  }

  // Draws words, sides and first attempts of the negatives from `first` on, and asks for the bits that say which attempts
  // are known.
  void prepare(int64_t first, const Tile& tile, Batch& batch) const {
    batch.first = first;
    batch.lanes = int(std::max<int64_t>(0, std::min<int64_t>(Batch::kLanes, tile.end * a.K - first)));
    if (!batch.lanes) return;
    number(first, batch.row, batch.k);
    batch.words.fill(batch.row, batch.k, uint32_t(a.step), 0, uint32_t(a.seed), uint32_t(uint64_t(a.seed) >> 32));
    // Stores of bytes may change anything for all that the compiler knows.
    const List all[2] = {all_[0], all_[1]};
    const int64_t *head_below = a.head_below, *given = a.first;
    const bool only_sides = a.only_sides;
    for (int lane = 0; lane < batch.lanes; ++lane) {
      const Positive& p = tile.of(batch.row[lane]);
      const int side = int64_t(batch.words.word[0][lane]) >= head_below[p.relation];
      batch.side[lane] = int8_t(side);
      if (only_sides) continue;
      const uint64_t product = batch.words.word[1][lane] * all[side].size;
      batch.place[lane] = uint32_t(product >> 32);
      batch.refused[lane] = (uint32_t(product) < all[side].refuse_below) | !all[side].size;
      if (given) {
        batch.place[lane] = uint32_t(given[batch.row[lane] / a.chunk_size * a.K + batch.k[lane]]);
        batch.refused[lane] = false;
      }
      p.sieve[side].prefetch(batch.place[lane]);
    }
  }

  // Writes row and k of the negatives from `first` on.
  void number(int64_t first, uint32_t* row, uint32_t* k) const {
    uint32_t r = uint32_t(first / a.K), next = uint32_t(first % a.K);
    for (int lane = 0; lane < PhiloxLanes::kLanes;) {
      const int same = int(std::min<int64_t>(PhiloxLanes::kLanes - lane, a.K - next));
      for (int i = 0; i < same; ++i) {
        row[lane + i] = r;
        k[lane + i] = next + uint32_t(i);
      }
      lane += same;
      next = 0;
      ++r;
    }
  }

  // Writes sides and first attempts; returns a bit for each negative that must be drawn otherwise.
  uint32_t attempt(const Batch& batch, const Tile& tile) const {
    std::copy(batch.side, batch.side + batch.lanes, a.side + batch.first);
    if (a.only_sides) return 0;
    const int64_t* table = a.table;
    int64_t* entity = a.entity + batch.first;
    const int8_t* level = a.level ? a.level + batch.first : nullptr;
    uint32_t undone = 0;
    for (int lane = 0; lane < batch.lanes; ++lane) {
      const Positive& p = tile.of(batch.row[lane]);
      const int side = batch.side[lane];
      const bool listed = table && pool_of(level ? level[lane] : 0, side, p.relation) != kWhole;
      entity[lane] = batch.place[lane];
      // Nine of ten negatives need no more than this.
      const bool again = listed | batch.refused[lane] | p.sieve[side].holds(batch.place[lane]);
      undone |= uint32_t{again} << lane;
    }
    return undone;
  }

  void set(int64_t i, Positive& p) const {
    const int64_t* triple = a.positives + 3 * i;
    p.row = i;
    p.relation = triple[1];
    for (int side = 0; side < 2; ++side) {
      p.own[side] = triple[2 * side];
      p.key[side] = uint64_t((side * a.num_entities + triple[2 - 2 * side]) * a.num_relations + triple[1]);
    }
  }

  void look_up(Positive* positives, int64_t count) const {
    if (a.slots) {
      for (int64_t i = 0; i < 2 * count; ++i) known_.prefetch_slot(positives[i / 2].key[i % 2]);
      for (int64_t i = 0; i < 2 * count; ++i) known_.prefetch_block(positives[i / 2].key[i % 2]);
      for (Positive* p = positives; p < positives + count; ++p) {
        for (int side = 0; side < 2; ++side) p->group[side] = known_.find(p->key[side]);
      }
    }
    for (Positive* p = positives; p < positives + count; ++p) {
      for (int side = 0; side < 2; ++side) p->sieve[side].of(p->group[side], p->own[side]);
    }
  }

  // `given` is what a chunk shares, where it shares anything.
  int64_t draw(const Positive& p, int side, int8_t* level, int64_t given, Stream& words, Complement& complement) const {
    int64_t pool = pool_of(level ? *level : 0, side, p.relation), index = kFirstAttempt, place;
    for (;;) {
      const List list = pool == kWhole ? all_[side] : List(a.ids + a.indptr[pool], a.indptr[pool + 1] - a.indptr[pool]);
      for (const int64_t last = index + kMaxAttempts; index < last; ++index) {
        if (index == kFirstAttempt && a.first && pool == kWhole) {
          // A sieve may have held it back that is not known.
          if (!p.excludes(side, given)) return given;
          continue;
        }
        if (list.choose(words[index], &place) && !p.excludes(side, list[place])) return list[place];
      }
      const std::vector<int64_t>& left = complement.of(p, side, pool, list);
      if (!left.empty()) {
        const List rest(left.data(), int64_t(left.size()));
        while (!rest.choose(words[index], &place)) ++index;
        return rest[place];
      }
      if (pool == kWhole) return kNone;
      pool = level && *level > 0 ? pool_of(0, side, p.relation) : kWhole;
      if (level) *level = 0;
    }
  }

  int64_t pool_of(int64_t level, int side, int64_t relation) const {
    return a.table ? a.table[(level * 2 + side) * a.num_relations + relation] : kWhole;
  }

  const DrawArgs& a;
  const KnownTriples known_;
  const List all_[2];
};

}  // namespace
}  // namespace hgmm

// The number of words that all blocks take.
HGMM_API int64_t hgmm_known_triples_words(const int64_t* indptr, int64_t num_groups) {
  int64_t words = 0;
  for (int64_t g = 0; g < num_groups; ++g) words += hgmm::Group::words(indptr[g + 1] - indptr[g]);
  return words;
}

HGMM_API int hgmm_known_triples_index(const hgmm::IndexArgs* args) {
  const hgmm::IndexArgs& a = *args;
  std::fill(a.slots, a.slots + a.num_slots, hgmm::KnownTriples::kEmpty);
  hgmm::KnownTriples known(a.slots, a.blocks, a.num_slots);
  int64_t offset = 0;
  for (int64_t g = 0; g < a.num_groups; ++g) {
    const int64_t count = a.indptr[g + 1] - a.indptr[g];
    hgmm::Group::write(a.blocks + offset, uint64_t(a.keys[g]), a.entities + a.indptr[g], count);
    known.insert(uint64_t(a.keys[g]), offset);
    offset += hgmm::Group::words(count);
  }
  return hgmm::kOk;
}

// Writes to `failed` the first negative for which there is no entity, or -1.
HGMM_API int hgmm_draw_negatives(const hgmm::DrawArgs* args, int64_t* failed) {
  if (args->K < 1) return hgmm::kUnknownOption;
  const int64_t first = hgmm::Sampler(*args).run();
  *failed = first == args->num_positives * args->K ? -1 : first;
  return first < 0 ? hgmm::kOutOfMemory : hgmm::kOk;
}
