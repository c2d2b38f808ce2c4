// The machine behind cuda_runtime.h: plays a launch block by block, the threads of a block as fibres of this thread.
// What a fibre calls here is and touches plain memory only, so that ThreadSanitizer judges the device code
// alone: it knows the fibres as threads, a barrier as what orders them, and a shuffle as nothing, as on a GPU.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include "cuda_runtime.h"
#include "fibre.h"
#include "random.h"

namespace pydistill {
constexpr size_t kDynamicShared = 46 * 1024;  // of 48 KB: static memory, which the shim does not see, takes the rest
alignas(16) thread_local std::byte dynamic_shared[kDynamicShared];  // core/group.cuh declares it
}  // namespace pydistill

namespace shim {
namespace {

using pydistill::dynamic_shared, pydistill::kDynamicShared;
constexpr unsigned kWarp = 32, kMostThreads = 1024;

void guard_dynamic_shared([[maybe_unused]] size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(dynamic_shared, bytes);
  __asan_poison_memory_region(dynamic_shared + bytes, kDynamicShared - bytes);
#endif
  memset(dynamic_shared, 0xff, bytes);
}

// Orders what happened before a release() of one address before what follows an acquire() of it.
void release([[maybe_unused]] void* address) {
#ifdef __SANITIZE_THREAD__
  __tsan_release(address);
#endif
}
void acquire([[maybe_unused]] void* address) {
#ifdef __SANITIZE_THREAD__
  __tsan_acquire(address);
#endif
}

std::string name(const Site& site) {
  const std::string file = site.file_name();
  return file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(site.line());
}

bool same(const Site& a, const Site& b) { return a.file_name() == b.file_name() && a.line() == b.line(); }

std::string from_environment(const char* variable) { return std::getenv(variable) ? std::getenv(variable) : ""; }

thread_local struct Barriers {
  static constexpr int kMost = 64;
  Site site[kMost];
  bool dropped[kMost];
  int count = 0;
  std::string drop = from_environment("PYDISTILL_SHIM_DROP");

  bool drops(const Site& at) {
    for (int i = 0; i < count; ++i)
      if (same(site[i], at)) return dropped[i];
    if (count == kMost) return false;
    site[count] = at;
    return dropped[count++] = name(at) == drop;
  }
} met;

// Threads that wait for one another. Rounds alternate, because one may leave the last while another enters the next.
struct Meeting {
  unsigned arrived = 0, mask = 0, round = 0;
  Site site;
  char order[2];
};

struct Warp {
  unsigned ready = 0;      // lanes that can run
  Meeting meeting[kWarp];  // by the lowest lane of the mask
  uint64_t value[kWarp];   // what a lane brings to a shuffle and, when all are there, takes from it
  unsigned from[kWarp] = {};
};

class Machine {
 public:
  explicit Machine(uint64_t seed) : random{seed} { std::iota(priority_, priority_ + kWarp, 0u); }
  Random random;

  void launch(const cudaLaunchConfig_t& config, void (*thread)(const void*), const void* argument) {
    threads_ = config.blockDim.x, thread_ = thread, argument_ = argument;
    while (fibres_.size() < threads_) fibres_.push_back(std::make_unique<Fibre>(play));
    std::vector<unsigned> order(config.gridDim.x);
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), random);
    blockDim = config.blockDim, gridDim = config.gridDim;
    for (unsigned block : order) {
      blockIdx.x = block;
      guard_dynamic_shared(config.dynamicSmemBytes);
      run_block();
    }
    guard_dynamic_shared(kDynamicShared);
  }

  unsigned lane() const { return current_ % kWarp; }

  void meet_block(const Site& site) {
    Meeting& m = block_;
    if (m.arrived == 0) m.site = site;
    if (!same(m.site, site)) fail("threads of one block wait at two barriers", site);
    char* order = &m.order[m.round];
    release(order);
    if (++m.arrived == threads_) {
      m.arrived = 0, m.round ^= 1;
      for (unsigned w = 0; w < warps(); ++w) wake(w, members(w));
    }
    wait(site);
    acquire(order);
  }

  void meet_warp(unsigned mask, const Site& site) {
    char* order;
    release(order = &meeting(mask).order[meeting(mask).round]);
    arrive(mask, site);
    wait(site);
    acquire(order);
  }

  uint64_t exchange(unsigned mask, uint64_t value, unsigned from, const Site& site) {
    Warp& warp = warp_[current_ / kWarp];
    const unsigned me = lane();
    if (from >= kWarp || !(mask >> from & 1)) fail("a shuffle reads a thread outside its mask", site);
    warp.value[me] = value, warp.from[me] = from;
    arrive(mask, site);
    wait(site);
    return warp.value[me];
  }

 private:
  static void play();

  unsigned warps() const { return (threads_ + kWarp - 1) / kWarp; }
  unsigned members(unsigned w) const {
    const unsigned left = threads_ - w * kWarp;
    return left >= kWarp ? ~0u : (1u << left) - 1;
  }
  Meeting& meeting(unsigned mask) { return warp_[current_ / kWarp].meeting[__builtin_ctz(mask | 1u << 31)]; }
  void wake(unsigned w, unsigned lanes) { warp_[w].ready |= lanes, ready_ |= 1u << w; }

  void wait(const Site& site) {
    waits_at_[current_] = site;
    fibres_[current_]->switch_to(own_);
  }

  void fail(const char* what, const Site& site) {
    failure_ = what, waits_at_[current_] = site;
    fibres_[current_]->switch_to(own_);  // and never back
  }

  void arrive(unsigned mask, const Site& site) {
    const unsigned w = current_ / kWarp;
    Warp& warp = warp_[w];
    Meeting& m = meeting(mask);
    if (!(mask >> lane() & 1)) fail("a thread is not in the mask it meets with", site);
    if (m.arrived == 0) m.mask = mask, m.site = site;
    if (m.mask != mask || !same(m.site, site)) fail("threads of one warp meet with two masks or in two places", site);
    m.arrived |= 1u << lane();
    if (m.arrived != mask) return;
    uint64_t taken[kWarp];
    for (unsigned i = 0; i < kWarp; ++i)
      if (mask >> i & 1) taken[i] = warp.value[warp.from[i]];
    for (unsigned i = 0; i < kWarp; ++i)
      if (mask >> i & 1) warp.value[i] = taken[i];
    m.arrived = 0, m.round ^= 1;
    wake(w, mask);
  }

  void run_block() {
    finished_ = 0;
    for (unsigned w = 0; w < warps(); ++w) wake(w, members(w));
    bold_ = random() % 2;
    std::shuffle(priority_, priority_ + warps(), random);
    release(&start_);
    while (ready_) {
      const unsigned w = next_warp(), i = random.bit_of(warp_[w].ready);
      if (!(warp_[w].ready &= ~(1u << i))) ready_ &= ~(1u << w);
      threadIdx.x = current_ = w * kWarp + i;
      own_.switch_to(*fibres_[current_]);
      if (failure_) throw std::logic_error("shim: " + where(current_) + ": " + failure_);
    }
    acquire(&end_);
    if (finished_ != threads_) throw std::logic_error("shim: no thread can run on: " + standstill());
  }

  // Every second block lets its warps run as far ahead of the others as barriers allow.
  unsigned next_warp() {
    if (!bold_) return random.bit_of(ready_);
    return *std::find_if(priority_, priority_ + warps(), [&](unsigned w) { return ready_ >> w & 1; });
  }

  std::string where(unsigned thread) const {
    return "block " + std::to_string(blockIdx.x) + ", thread " + std::to_string(thread) + ", " +
           name(waits_at_[thread]);
  }

  std::string standstill() const {
    std::map<std::string, unsigned> waiting;
    for (unsigned t = 0; t < threads_; ++t) ++waiting[returned_[t] ? "its end" : name(waits_at_[t])];
    std::string text = "block " + std::to_string(blockIdx.x);
    for (const auto& [place, count] : waiting) text += ", " + std::to_string(count) + " threads at " + place;
    return text;
  }

  Fibre own_;
  std::vector<std::unique_ptr<Fibre>> fibres_;
  unsigned threads_ = 0, current_ = 0, finished_ = 0;
  void (*thread_)(const void*) = nullptr;
  const void* argument_ = nullptr;
  const char* failure_ = nullptr;
  unsigned ready_ = 0;  // warps with a lane that can run
  unsigned priority_[kWarp];
  bool bold_ = false;
  Warp warp_[kMostThreads / kWarp];
  Meeting block_;
  Site waits_at_[kMostThreads];
  bool returned_[kMostThreads] = {};
  char start_, end_;
};

thread_local std::unique_ptr<Machine> owner;
thread_local constinit Machine* machine = nullptr;

void Machine::play() {
  Machine& m = *machine;
  Fibre::started_by(m.own_);
  for (const unsigned me = m.current_;;) {
    m.returned_[me] = false;
    acquire(&m.start_);
    m.thread_(m.argument_);
    release(&m.end_);
    m.returned_[me] = true, ++m.finished_;
    m.fibres_[me]->switch_to(m.own_);
  }
}

uint64_t first_seed() {
  static const uint64_t seed = [] {
    const std::string given = from_environment("PYDISTILL_SHIM_SEED");
    if (!given.empty()) return std::strtoull(given.c_str(), nullptr, 10);
    const unsigned long long drawn = std::random_device()();
    std::fprintf(stderr, "PYDISTILL_SHIM_SEED=%llu\n", drawn);
    return drawn;
  }();
  return seed;
}

Machine& this_threads_machine() {
  if (!owner) owner = std::make_unique<Machine>(first_seed());
  return *owner;
}

}  // namespace

void seed(uint64_t seed) { this_threads_machine().random.state = seed; }

std::vector<std::string> barriers() {
  std::vector<std::string> names(met.count);
  std::transform(met.site, met.site + met.count, names.begin(), name);
  return names;
}

cudaError_t launch(const cudaLaunchConfig_t& config, void (*thread)(const void*), const void* argument) {
  const dim3 b = config.blockDim, g = config.gridDim;
  const bool flat = b.y == 1 && b.z == 1 && g.y == 1 && g.z == 1;
  if (!flat || b.x == 0 || b.x > kMostThreads || g.x == 0 || config.dynamicSmemBytes > kDynamicShared)
    return cudaErrorInvalidValue;
  machine = &this_threads_machine();
  try {
    machine->launch(config, thread, argument);
  } catch (...) {
    owner.reset();  // with fibres that never end
    throw;
  }
  return cudaSuccess;
}

void meet_block(Site site) {
  if (!met.drops(site)) machine->meet_block(site);
}
void meet_warp(unsigned mask, Site site) {
  if (!met.drops(site)) machine->meet_warp(mask, site);
}
uint64_t exchange(unsigned mask, uint64_t value, unsigned from, Site site) {
  return machine->exchange(mask, value, from, site);
}
unsigned lane() { return machine->lane(); }

}  // namespace shim
