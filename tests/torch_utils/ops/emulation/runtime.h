// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// Runs a grid one block after the other, a block's threads in turns from barrier to barrier. What a kernel must not do
// ends its launch with an exception.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emulation {

class GuardedMemory;

extern dim3 grid_dim, block_dim, block_idx, thread_idx;

// Blocks that the sources may launch, and what they take for the largest index of 32 bits.
extern int64_t max_blocks, int32_max;

void barrier();
void run(const char* kernel, dim3 grid, dim3 block, const std::function<void()>& thread);

// kernel<<<grid, block>>>(args)
template <class... Params, class... Args>
void launch(const char* name, dim3 grid, dim3 block, void (*kernel)(Params...), Args&&... args) {
  const std::tuple<Params...> params(args...);
  run(name, grid, block, [&] { std::apply(kernel, params); });
}

// One variable in shared memory. It holds NaN at the start of each block, and ends where memory ends.
class SharedMemory {
 public:
  explicit SharedMemory(size_t size);
  void* of_this_block();

 private:
  GuardedMemory* const memory_;  // for as long as the process lives
  int64_t block_ = -1;
};

template <class Variable, int line>
static Variable& shared() {  // static: each library has its own
  static SharedMemory memory(sizeof(Variable));
  return *static_cast<Variable*>(memory.of_this_block());
}

// Operations that are registered while the emulation is on.
struct Operations {
  explicit Operations(void (*turn)(bool on));
};

}  // namespace emulation
