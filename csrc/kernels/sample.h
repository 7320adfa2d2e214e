// Uniform sampling without replacement: a sorted sample in O(count), the same for any number of
// threads.
//
// Divide and conquer (Sanders et al. 2018, "Efficient parallel random sampling", doi
// 10.1145/3157734): the population is halved repeatedly, and a hypergeometric number says how much
// of the sample falls into each half. The numbers of each small leaf are then drawn one by one.
// Each node of the tree has its own stream of random numbers, and the shape of the tree depends on
// (population, count) alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "hypergeometric.h"
#include "philox.h"

namespace tts {

// The most draws expected in a leaf: few enough for its memory to stay in the first-level cache.
constexpr int64_t leaf_draws = 512;

// A node of the tree: `count` numbers of [first, first + size), to be written from out[offset] on.
struct SampleNode {
  int64_t first, size, count, offset;
  uint64_t stream;
};

// How often the population of a sample of `count` out of [0, population) is halved.
inline int sample_depth(int64_t population, int64_t count) {
  int depth = 0;
  while ((count >> depth) > leaf_draws && (population >> depth) > 1) ++depth;
  return depth;
}

// Halves the nodes of the tree from level `from` down to level `to`, in place. Node i of level l
// (of the tree, or of its part below one node) stands at nodes[i << (depth - l)].
//   nodes (1 << (depth - from)): nodes[0] is the node to begin with; 0 <= count <= size
// Cost: O(standard deviation of a half's count) for each node that is halved.
inline void halve(uint64_t seed, SampleNode* nodes, int from, int to, int depth) {
  const int64_t extent = int64_t{1} << (depth - from);
  for (int level = from; level < to; ++level) {
    const int64_t step = int64_t{1} << (depth - level);
    for (int64_t at = 0; at < extent; at += step) {
      const SampleNode node = nodes[at];
      const int64_t left = node.size / 2;
      Philox random(seed, node.stream);
      const int64_t in_left = hypergeometric(left, node.size - left, node.count, random);
      nodes[at] = {node.first, left, in_left, node.offset, node.stream * 2};
      nodes[at + step / 2] = {node.first + left, node.size - left, node.count - in_left,
                              node.offset + in_left, node.stream * 2 + 1};
    }
  }
}

// Draws the numbers of leaves; holds the scratch of one thread, reused for each leaf.
class LeafSampler {
 public:
  // `most`: the largest count of a leaf. Throws std::bad_alloc.
  LeafSampler(uint64_t seed, int64_t most) : seed_(seed) {
    while ((int64_t{1} << bits_) < most) ++bits_;
    ends_.resize((size_t{1} << bits_) + 1);
    words_.resize(static_cast<size_t>(most));
    numbers_.resize(static_cast<size_t>(most));
  }

  // Writes the leaf's numbers, sorted and distinct, to out[leaf.offset ...].
  // Cost: O(count) expected, where the leaf is nearly empty or nearly full, otherwise
  // O(count log leaf_draws).
  void draw(const SampleNode& leaf, int64_t* out) {
    const bool draw_absent = leaf.count > leaf.size / 2;  // the numbers left out are fewer
    const int64_t wanted = draw_absent ? leaf.size - leaf.count : leaf.count;
    draw_sorted(leaf, wanted);
    int64_t* to = out + leaf.offset;
    if (!draw_absent) {
      for (int64_t i = 0; i < wanted; ++i) to[i] = leaf.first + numbers_[static_cast<size_t>(i)];
      return;
    }
    auto absent = numbers_.begin();
    const auto last = numbers_.begin() + wanted;
    for (int64_t number = 0; number < leaf.size; ++number) {
      if (absent != last && *absent == number)
        ++absent;
      else
        *to++ = leaf.first + number;
    }
  }

 private:
  // Puts `wanted` distinct numbers of [0, leaf.size) into numbers_, sorted.
  void draw_sorted(const SampleNode& leaf, int64_t wanted) {
    Philox random(seed_, leaf.stream);
    const auto size = static_cast<uint64_t>(leaf.size);
    const auto begin = numbers_.begin();
    auto end = begin;
    if (wanted > 0) end = first_draws(random, size, wanted);
    while (end != begin + wanted) {  // repeated numbers are drawn again
      for (; end != begin + wanted; ++end) *end = static_cast<int64_t>(random.below(size));
      std::sort(begin, end);
      end = std::unique(begin, end);
    }
  }

  // Makes `wanted` draws and returns the end of the distinct ones in numbers_, sorted. A number
  // grows with the random word that it is made from. A counting sort by the leading bits of the
  // words therefore puts nearly every number into its place, and an insertion sort does the rest.
  std::vector<int64_t>::iterator first_draws(Philox& random, uint64_t size, int64_t wanted) {
    const int shift = 64 - bits_;
    std::fill(ends_.begin(), ends_.end(), 0);
    for (int64_t i = 0; i < wanted; ++i) {
      const uint64_t word = random.word_below(size);
      words_[static_cast<size_t>(i)] = word;
      ++ends_[(word >> shift) + 1];
    }
    for (size_t bucket = 1; bucket < ends_.size(); ++bucket) ends_[bucket] += ends_[bucket - 1];
    for (int64_t i = 0; i < wanted; ++i) {
      const uint64_t word = words_[static_cast<size_t>(i)];
      numbers_[static_cast<size_t>(ends_[word >> shift]++)] = Philox::scale(word, size);
    }
    int64_t* numbers = numbers_.data();
    for (int64_t i = 1; i < wanted; ++i) {
      const int64_t number = numbers[i];
      int64_t at = i;
      for (; at > 0 && numbers[at - 1] > number; --at) numbers[at] = numbers[at - 1];
      numbers[at] = number;
    }
    return std::unique(numbers_.begin(), numbers_.begin() + wanted);
  }

  uint64_t seed_;
  int bits_ = 1;  // leading bits of a word that choose its bucket: about one number a bucket
  std::vector<uint32_t> ends_;
  std::vector<uint64_t> words_;
  std::vector<int64_t> numbers_;
};

}  // namespace tts
