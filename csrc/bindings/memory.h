// Memory for scratch and results, reused to avoid page faults.
//
// The system hands out new memory in pages that it zeroes at the first access: 0.25 microseconds
// for each 4 KiB, a fifth of that on pages of 2 MiB, and in both cases more than the arithmetic on
// this memory takes. A training step frees its gradients and allocates them again, so freed large
// blocks are kept for a while and handed out again without being cleared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

#include <pthread.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace tts {

constexpr size_t huge_page = size_t{2} << 20, small_page = size_t{4} << 10;

// Blocks of this many bytes and more come from the cache. Smaller blocks come from malloc, which
// keeps them when they are freed; from 128 KiB on malloc may return each block to the system, and
// the next one pays for its page faults again.
constexpr size_t cached_from = size_t{128} << 10;

// From this many bytes on, huge pages are worth the time to zero them.
constexpr size_t huge_from = size_t{1} << 20;

// Asks for huge pages on the part of [data, data + bytes) that whole huge pages can cover. The
// system may ignore this advice.
inline void advise_huge_pages(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = huge_page;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) & ~(page - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(page - 1);
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

// A cache of freed blocks, each of whole pages (of huge pages if the block is large). A released
// block is kept for a later request of a similar size.
class BlockCache {
 public:
  // The cache keeps at most `most` bytes; a block that no request has taken within `patience`
  // requests goes back to the system.
  static constexpr size_t most = size_t{512} << 20;
  static constexpr int64_t patience = 512;

  // Never destroyed: tensors may outlive every static object. A process that forks while another
  // of its threads is in here leaves its child a cache that is whole and not locked.
  static BlockCache& global() {
    static auto* cache = [] {
      auto* made = new BlockCache;
      pthread_atfork([] { global().mutex_.lock(); }, [] { global().mutex_.unlock(); },
                     [] { global().mutex_.unlock(); });
      return made;
    }();
    return *cache;
  }

  // At least `bytes` bytes, uninitialised, on a page boundary. Throws std::bad_alloc.
  void* acquire(size_t bytes) {
    const size_t unit = bytes < huge_from ? small_page : huge_page;
    const size_t wanted = (bytes + unit - 1) / unit * unit;
    const std::lock_guard<std::mutex> lock(mutex_);
    ++requests_;
    size_t best = idle_.size();
    for (size_t i = 0; i < idle_.size(); ++i) {
      const size_t size = idle_[i].size;
      // Of blocks of equal size, the last one released is the likeliest to be in the CPU's cache.
      if (size >= wanted && size <= wanted + wanted / 4 &&
          (best == idle_.size() || size <= idle_[best].size))
        best = i;
    }
    if (best < idle_.size()) {
      const Block block = take(best);
      in_use_[block.data] = block.size;
      return block.data;
    }
    forget_old();
    void* data = std::aligned_alloc(unit, wanted);
    if (data == nullptr) {
      while (!idle_.empty()) std::free(take(0).data);
      data = std::aligned_alloc(unit, wanted);
    }
    if (data == nullptr) throw std::bad_alloc();
    if (unit == huge_page) advise_huge_pages(data, wanted);
    in_use_[data] = wanted;
    return data;
  }

  // Takes back a block that `acquire` returned.
  void release(void* data) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = in_use_.find(data);
    const size_t size = found->second;
    in_use_.erase(found);
    if (size > most) return std::free(data);
    while (kept_ + size > most) std::free(take(0).data);  // the oldest first
    idle_.push_back({data, size, requests_});
    kept_ += size;
  }

 private:
  struct Block {
    void* data;
    size_t size;
    int64_t released;  // number of requests before its release
  };

  Block take(size_t i) {
    const Block block = idle_[i];
    idle_.erase(idle_.begin() + static_cast<std::ptrdiff_t>(i));
    kept_ -= block.size;
    return block;
  }

  void forget_old() {
    while (!idle_.empty() && requests_ - idle_[0].released > patience) std::free(take(0).data);
  }

  std::mutex mutex_;
  std::vector<Block> idle_;  // in the order of their release
  std::unordered_map<void*, size_t> in_use_;
  size_t kept_ = 0;
  int64_t requests_ = 0;
};

// Uninitialised scratch of `size` values, on cache-line boundaries. Throws std::bad_alloc.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t size) {
    const size_t bytes = static_cast<size_t>(size) * sizeof(T);
    cached_ = bytes >= cached_from;
    data_ = static_cast<T*>(cached_ ? BlockCache::global().acquire(bytes)
                                    : std::aligned_alloc(64, (bytes / 64 + 1) * 64));
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~Scratch() {
    if (cached_)
      BlockCache::global().release(data_);
    else
      std::free(data_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const { return data_; }

 private:
  T* data_;
  bool cached_;
};

}  // namespace tts
