// Uniform sampling without replacement, sorted, in O(count), for any split over threads.
//
// Divide and conquer (Sanders et al. 2018, "Efficient parallel random sampling", doi
// 10.1145/3157734): the population is halved again and again; a hypergeometric number says how
// much of the sample falls into each half. Small leaves are then drawn one by one. Each node of
// the tree has its own stream of random numbers, and the tree follows from (population, count).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "hypergeometric.h"
#include "philox.h"

namespace tts {

// Expected draws in a leaf: its sort stays in the first-level cache.
constexpr int64_t leaf_draws = 512;

// One leaf: `count` numbers of [first, first + size), to be written at out[offset].
struct SampleLeaf {
  int64_t first, size, count, offset;
  uint64_t stream;
};

// The leaves of a sample of `count` out of [0, population), in order. 0 <= count <= population.
// Cost: O(count / leaf_draws) nodes, O(sqrt(count leaves)) steps of arithmetic.
inline std::vector<SampleLeaf> plan_sample(uint64_t seed, int64_t population, int64_t count) {
  int depth = 0;
  while ((count >> depth) > leaf_draws && (population >> depth) > 1) ++depth;
  std::vector<SampleLeaf> nodes{{0, population, count, 0, 1}};
  for (int level = 0; level < depth; ++level) {
    std::vector<SampleLeaf> children;
    children.reserve(nodes.size() * 2);
    for (const SampleLeaf& node : nodes) {
      const int64_t left = node.size / 2;
      Philox random(seed, node.stream);
      const int64_t in_left = hypergeometric(left, node.size - left, node.count, random);
      children.push_back({node.first, left, in_left, node.offset, node.stream * 2});
      children.push_back({node.first + left, node.size - left, node.count - in_left,
                          node.offset + in_left, node.stream * 2 + 1});
    }
    nodes = std::move(children);
  }
  return nodes;
}

// Writes the leaf's numbers, sorted and distinct, to out[leaf.offset ...].
// scratch is this thread's own, reused between leaves. Cost: O(count log leaf_draws).
inline void draw_leaf(uint64_t seed, const SampleLeaf& leaf, std::vector<int64_t>& scratch,
                      int64_t* out) {
  Philox random(seed, leaf.stream);
  const bool draw_absent = leaf.count > leaf.size / 2;  // fewer to draw: those left out
  const auto wanted = static_cast<size_t>(draw_absent ? leaf.size - leaf.count : leaf.count);
  scratch.clear();
  while (scratch.size() < wanted) {  // draws that repeat an earlier one do not count
    for (size_t i = scratch.size(); i < wanted; ++i)
      scratch.push_back(static_cast<int64_t>(random.below(static_cast<uint64_t>(leaf.size))));
    std::sort(scratch.begin(), scratch.end());
    scratch.erase(std::unique(scratch.begin(), scratch.end()), scratch.end());
  }
  int64_t* to = out + leaf.offset;
  if (!draw_absent) {
    for (int64_t number : scratch) *to++ = leaf.first + number;
    return;
  }
  auto absent = scratch.begin();
  for (int64_t number = 0; number < leaf.size; ++number) {
    if (absent != scratch.end() && *absent == number)
      ++absent;
    else
      *to++ = leaf.first + number;
  }
}

}  // namespace tts
