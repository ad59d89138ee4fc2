// Which entities make known triples: a hash table from (side, kept entity, relation) to a group of entities.
//
// A group is a block of 32-bit words: its key in two, the number of entities, these ascending, and where there are more
// than kScan of them a bitmap with at least 32 bits an entity, which answers all but a few of a hundred questions about
// entities that are not in the group; of the others a Sieve makes one for each positive. So all questions about one
// positive meet the same one or two cache lines, or the bitmap of a large group.
//
// A slot holds the offset of a block and, above it, 16 bits of the hash: another group's block is hardly ever touched.
#pragma once

#include <cstdint>

namespace hgmm {

class Group {
 public:
  Group() = default;
  explicit Group(const int32_t* block) : block_(block) {}

  static constexpr int64_t kScan = 8;
  static constexpr int64_t kHead = 3;

  static int64_t words(int64_t count) { return kHead + count + (count > kScan ? (int64_t{1} << bits(count)) / 32 : 0); }

  static void write(int32_t* block, uint64_t key, const int64_t* entities, int64_t count) {
    block[0] = int32_t(key);
    block[1] = int32_t(key >> 32);
    block[2] = int32_t(count);
    for (int64_t i = 0; i < count; ++i) block[kHead + i] = int32_t(entities[i]);
    if (count <= kScan) return;
    uint32_t* bitmap = reinterpret_cast<uint32_t*>(block + kHead + count);
    for (int64_t w = 0; w < (int64_t{1} << bits(count)) / 32; ++w) bitmap[w] = 0;
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t bit = place(uint32_t(entities[i]), bits(count));
      bitmap[bit / 32] |= uint32_t{1} << (bit % 32);
    }
  }

  uint64_t key() const { return uint32_t(block_[0]) | uint64_t(uint32_t(block_[1])) << 32; }
  int64_t count() const { return block_ ? block_[2] : 0; }
  int64_t entity(int64_t i) const { return block_[kHead + i]; }

  bool contains(int64_t entity) const {
    const int64_t n = count();
    if (n > kScan) return search(block_ + kHead, n, int32_t(entity));
    bool found = false;
    for (int64_t i = 0; i < n; ++i) found |= this->entity(i) == entity;
    return found;
  }

 private:
  friend class Sieve;

  // 2^bits is at least 32 count.
  static int bits(int64_t count) { return 64 - __builtin_clzll(uint64_t(32 * count - 1)); }

  static uint32_t place(uint32_t entity, int bits) {
    return uint32_t((uint64_t(entity) * 0x9E3779B97F4A7C15u) >> (64 - bits));
  }

  static bool search(const int32_t* entities, int64_t n, int32_t entity) {
    // Without a branch: no processor can foresee the way.
    int64_t low = 0;
    while (n > 1) {
      const int64_t half = n / 2;
      low += entities[low + half - 1] < entity ? half : 0;
      n -= half;
    }
    return entities[low] == entity;
  }

  const int32_t* block_ = nullptr;
};

// A bitmap of a group and one entity more, which answers without a branch: which of many groups is asked, and how large
// it is, no processor can foresee.
class Sieve {
 public:
  Sieve() = default;
  Sieve(const Sieve&) = delete;
  Sieve& operator=(const Sieve&) = delete;

  void of(const Group& group, int64_t own) {
    own_ = own;
    const int64_t n = group.count();
    if (n > Group::kScan) {
      words_ = reinterpret_cast<const uint32_t*>(group.block_ + Group::kHead + n);
      shift_ = 64 - Group::bits(n);
      return;
    }
    for (uint32_t& word : few_) word = 0;
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t bit = Group::place(uint32_t(group.entity(i)), kFewBits);
      few_[bit / 32] |= uint32_t{1} << (bit % 32);
    }
    words_ = few_;
    shift_ = 64 - kFewBits;
  }

  void prefetch(uint32_t entity) const { __builtin_prefetch(words_ + Group::place(entity, 64 - shift_) / 32); }

  // False for all but those of the group and the own one, and few others.
  bool holds(uint32_t entity) const {
    const uint32_t bit = Group::place(entity, 64 - shift_);
    return (words_[bit / 32] >> (bit % 32) & 1) | (entity == own_);
  }

 private:
  static constexpr int kFewBits = 8;

  const uint32_t* words_ = nullptr;
  int64_t own_ = -1;
  int shift_ = 0;
  uint32_t few_[(1 << kFewBits) / 32];
};

class KnownTriples {
 public:
  KnownTriples(uint64_t* slots, int32_t* blocks, int64_t num_slots)
      : slots_(slots), blocks_(blocks), shift_(64 - __builtin_ctzll(uint64_t(num_slots))), mask_(uint64_t(num_slots) - 1) {}

  // The slots are empty, and at least one stays so.
  void insert(uint64_t key, int64_t offset) {
    const uint64_t hash = mix(key);
    uint64_t slot = hash >> shift_;
    while (slots_[slot] != kEmpty) slot = (slot + 1) & mask_;
    slots_[slot] = (hash & kTag) << kOffsetBits | uint64_t(offset);
  }

  void prefetch_slot(uint64_t key) const { __builtin_prefetch(slots_ + (mix(key) >> shift_)); }

  Group find(uint64_t key) const {
    const uint64_t hash = mix(key);
    for (uint64_t slot = hash >> shift_;; slot = (slot + 1) & mask_) {
      const uint64_t held = slots_[slot];
      if (held == kEmpty) return Group();
      if (held >> kOffsetBits != (hash & kTag)) continue;
      const Group group(blocks_ + (held & kOffset));
      if (group.key() == key) return group;
    }
  }

  // Asks for the block that `find` will most likely read.
  void prefetch_block(uint64_t key) const {
    const uint64_t held = slots_[mix(key) >> shift_];
    if (held != kEmpty) __builtin_prefetch(blocks_ + (held & kOffset));
  }

  static constexpr uint64_t kEmpty = ~uint64_t{0};

 private:
  static constexpr int kOffsetBits = 48;
  static constexpr uint64_t kOffset = (uint64_t{1} << kOffsetBits) - 1;
  static constexpr uint64_t kTag = 0xFFFF;

  // The finaliser of SplitMix64: Steele, Lea and Flood, OOPSLA 2014.
  static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
  }

  uint64_t* slots_;
  int32_t* blocks_;
  int shift_;
  uint64_t mask_;
};

}  // namespace hgmm
