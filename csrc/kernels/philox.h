// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as
// easy as 1, 2, 3", doi 10.1145/2063384.2063405).
//
// A stream of numbers depends on (seed, stream) alone, so that work split over any number of
// threads draws the same numbers.
#pragma once

#include <cstdint>

namespace tts {

class Philox {
 public:
  Philox(uint64_t seed, uint64_t stream) : seed_(seed), stream_(stream) {}

  // 64 uniform bits.
  uint64_t next() {
    if (unused_ == 0) refill();
    return buffer_[--unused_];
  }

  // Uniform in [0, 1), with 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

  // Uniform integer in [0, bound), without bias (Lemire 2019, doi 10.1145/3230636). bound >= 1.
  uint64_t below(uint64_t bound) { return static_cast<uint64_t>(scale(word_below(bound), bound)); }

  // A word for which scale(word, bound) is uniform. bound >= 1.
  uint64_t word_below(uint64_t bound) {
    uint64_t word = next();
    if (word * bound < bound) {  // the low half of the product
      const uint64_t threshold = (0 - bound) % bound;
      while (word * bound < threshold) word = next();
    }
    return word;
  }

  // Maps a word to an integer in [0, bound): floor(word * bound / 2^64), which grows with the word.
  static int64_t scale(uint64_t word, uint64_t bound) {
    return static_cast<int64_t>(static_cast<uint64_t>(static_cast<Wide>(word) * bound >> 64));
  }

 private:
  __extension__ typedef unsigned __int128 Wide;

  void refill() {
    uint32_t counter[4] = {static_cast<uint32_t>(block_), static_cast<uint32_t>(block_ >> 32),
                           static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32)};
    uint32_t key[2] = {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)};
    for (int round = 0; round < 10; ++round) {
      const uint64_t a = uint64_t{0xD2511F53} * counter[0];
      const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
      const uint32_t next[4] = {
          static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
          static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
      for (int i = 0; i < 4; ++i) counter[i] = next[i];
      key[0] += 0x9E3779B9;
      key[1] += 0xBB67AE85;
    }
    buffer_[1] = counter[0] | static_cast<uint64_t>(counter[1]) << 32;
    buffer_[0] = counter[2] | static_cast<uint64_t>(counter[3]) << 32;
    unused_ = 2;
    ++block_;
  }

  uint64_t seed_, stream_, block_ = 0;
  uint64_t buffer_[2] = {};
  int unused_ = 0;
};

}  // namespace tts
