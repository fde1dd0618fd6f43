// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0
//
// Memory between pages that must not be touched, for tensors and for shared memory of the emulated kernels.

#pragma once

#include <cstddef>
#include <string>

namespace emulation {

// Bytes that are NaN in every floating type. They end at a page that must not be touched, at most 15 bytes behind
// them; what lies before them in their first page, and those up to 15 bytes, must stay NaN.
class GuardedMemory {
 public:
  explicit GuardedMemory(size_t size);
  ~GuardedMemory();
  GuardedMemory(const GuardedMemory&) = delete;

  unsigned char* data() const { return data_; }
  size_t size() const { return size_; }
  void poison() const;

 private:
  friend std::string where(const void* address);
  friend std::string damage();
  bool is_damaged() const;

  unsigned char *base_, *data_;
  size_t size_, length_;
};

// While one lives, tensors are allocated in guarded memory.
class Guard {
 public:
  Guard();
  ~Guard();
};

// An address, told by the nearest guarded memory.
std::string where(const void* address);

// What was written to beside guarded memory that still lives; "" if nothing was.
std::string damage();

}  // namespace emulation
