// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0

#include "runtime.h"

#include "guarded_memory.h"

#include <c10/util/Exception.h>
#include <signal.h>
#include <ucontext.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace emulation {

dim3 grid_dim, block_dim, block_idx, thread_idx;
int64_t max_blocks = 1 << 20, int32_max = INT32_MAX;

namespace {

constexpr unsigned kMaxThreads = 1024;          // of a block
constexpr size_t kMaxShared = 48 << 10;         // bytes of a block, without asking for more
constexpr size_t kStack = 64 << 10;             // bytes of a thread
constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};

enum Order { first_to_last, last_to_first, shuffled };
Order order = first_to_last;
std::map<std::string, int64_t> launches;  // by kernel
int64_t block_serial = 0;
size_t shared_size = 0;  // of this block
std::vector<void (*)(bool)>& switches() {
  static std::vector<void (*)(bool)> all;
  return all;
}

// A stack on which threads run. A thread that comes to a barrier keeps its own until it goes on.
struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  unsigned thread;
};

// The block that runs.
ucontext_t scheduler;
std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Fiber*> idle, waiting;
std::vector<unsigned> threads;  // in the order in which they start
size_t num_started;
Fiber* running = nullptr;
const std::function<void()>* body;

struct Fault {
  int signal;
  const void* address;
} fault{};

void on_signal(int number, siginfo_t* info, void*) {
  if (running == nullptr) {  // not a kernel's
    signal(number, SIG_DFL);
    return;
  }
  fault = {number, info->si_addr};
  setcontext(&scheduler);
}

dim3 position(unsigned thread) {
  return {thread % block_dim.x, thread / block_dim.x % block_dim.y, thread / block_dim.x / block_dim.y};
}

void run_threads() {
  for (Fiber* const self = running;;) {
    while (num_started < threads.size()) {
      self->thread = threads[num_started++];
      thread_idx = position(self->thread);
      (*body)();
    }
    idle.push_back(self);
    swapcontext(&self->context, &scheduler);
  }
}

void resume(Fiber* fiber) {
  running = fiber;
  thread_idx = position(fiber->thread);
  swapcontext(&scheduler, &fiber->context);
  running = nullptr;
}

Fiber* idle_fiber() {
  if (idle.empty()) {
    fibers.push_back(std::make_unique<Fiber>());
    Fiber* fiber = fibers.back().get();
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack.get(), fiber->context.uc_stack.ss_size = kStack;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, run_threads, 0);
    return fiber;
  }
  Fiber* fiber = idle.back();
  idle.pop_back();
  return fiber;
}

// An exception ends the launch, and leaves the block's threads where they are.
void check(bool holds, const char* kernel, const std::string& message) {
  if (holds) return;
  const std::string thread = std::to_string(thread_idx.x), block = std::to_string(block_idx.x);
  idle.clear(), waiting.clear(), fibers.clear();
  TORCH_CHECK(false, "emulation of ", kernel, ": ", message, " (block ", block, ", thread ", thread, ")");
}

void check_fault(const char* kernel) {
  if (fault.signal == 0) return;
  const Fault last = fault;
  fault = {};
  const bool at_memory = last.signal == SIGSEGV || last.signal == SIGBUS;
  check(false, kernel, at_memory ? "touched " + where(last.address) : "undefined arithmetic, index or alignment");
}

template <class T>
void put_in_order(std::vector<T>& all) {
  if (order == last_to_first) std::reverse(all.begin(), all.end());
  if (order != shuffled) return;
  static uint32_t random = 1;
  for (size_t i = all.size(); i > 1; --i) {
    random = random * 1664525u + 1013904223u;
    std::swap(all[i - 1], all[(random >> 8) % i]);
  }
}

void run_block(const char* kernel) {
  ++block_serial;
  shared_size = 0;
  num_started = 0;
  while (num_started < threads.size()) {
    resume(idle_fiber());
    check_fault(kernel);
  }
  while (!waiting.empty()) {
    check(waiting.size() == threads.size(), kernel,
          std::to_string(waiting.size()) + " of " + std::to_string(threads.size()) + " threads came to a barrier");
    std::vector<Fiber*> all;
    all.swap(waiting);
    std::sort(all.begin(), all.end(), [](Fiber* a, Fiber* b) { return a->thread < b->thread; });
    put_in_order(all);
    for (Fiber* fiber : all) {
      resume(fiber);
      check_fault(kernel);
    }
  }
  check(shared_size <= kMaxShared, kernel, std::to_string(shared_size) + " bytes of shared memory");
}

// Catches what a CPU, or the compiler's checks, find while a kernel runs.
class SignalHandlers {
 public:
  SignalHandlers() {
    struct sigaction action {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    for (int number : kSignals) sigaction(number, &action, &before_[number]);
  }
  ~SignalHandlers() {
    for (const auto& [number, action] : before_) sigaction(number, &action, nullptr);
  }

 private:
  std::map<int, struct sigaction> before_;
};

}  // namespace

void barrier() {
  Fiber* const self = running;
  waiting.push_back(self);
  swapcontext(&self->context, &scheduler);
}

void run(const char* kernel, dim3 grid, dim3 block, const std::function<void()>& thread) {
  const int64_t num_blocks = int64_t{grid.x} * grid.y * grid.z, num_threads = int64_t{block.x} * block.y * block.z;
  check(0 < num_blocks && grid.x <= INT32_MAX && grid.y <= UINT16_MAX && grid.z <= UINT16_MAX, kernel,
        "a grid of " + std::to_string(num_blocks) + " blocks");
  check(num_blocks <= max_blocks, kernel, "a grid beyond the limit, of " + std::to_string(num_blocks) + " blocks");
  check(0 < num_threads && num_threads <= kMaxThreads, kernel, std::to_string(num_threads) + " threads a block");
  ++launches[kernel];
  grid_dim = grid, block_dim = block, body = &thread;
  const SignalHandlers handlers;
  for (int64_t b = 0; b < num_blocks; ++b) {
    block_idx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                 static_cast<unsigned>(b / grid.x / grid.y)};
    threads.resize(num_threads);
    for (unsigned t = 0; t < num_threads; ++t) threads[t] = t;
    put_in_order(threads);
    run_block(kernel);
  }
  const std::string damaged = damage();
  check(damaged.empty(), kernel, "wrote " + damaged);
}

SharedMemory::SharedMemory(size_t size) : memory_(new GuardedMemory(size)) {}

void* SharedMemory::of_this_block() {
  if (block_ != block_serial) {
    block_ = block_serial;
    shared_size += memory_->size();
    memory_->poison();
  }
  return memory_->data();
}

Operations::Operations(void (*turn)(bool on)) { switches().push_back(turn); }

}  // namespace emulation

// The calls from Python.
extern "C" {

void emulation_turn(int on) {
  for (auto* turn : emulation::switches()) turn(on != 0);
}

void emulation_guard(int on) {
  static std::unique_ptr<emulation::Guard> guard;
  guard = on ? std::make_unique<emulation::Guard>() : nullptr;
}

void emulation_set(int64_t max_blocks, int64_t int32_max, int order) {
  emulation::max_blocks = max_blocks, emulation::int32_max = int32_max;
  emulation::order = static_cast<emulation::Order>(order);
}

int64_t emulation_launches(const char* kernel) { return emulation::launches[kernel]; }
}
