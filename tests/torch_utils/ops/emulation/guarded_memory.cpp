// SPDX-FileCopyrightText: the GGDR authors of this repository
// SPDX-License-Identifier: Apache-2.0

#include "guarded_memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <set>

namespace emulation {
namespace {

constexpr size_t kAligned = 16;              // bytes, as the widest access of a thread
constexpr unsigned char kNaN = 0xff;         // each byte
constexpr uint8_t kAllocatorPriority = 200;  // above torch's own

std::set<const GuardedMemory*>& living() {
  static auto& all = *new std::set<const GuardedMemory*>;  // tensors may outlive what is destroyed at the end
  return all;
}

size_t page_size() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    if (size == 0) return {nullptr, c10::Device(c10::kCPU)};
    auto* memory = new GuardedMemory(size);
    return {memory->data(), memory, [](void* context) { delete static_cast<GuardedMemory*>(context); },
            c10::Device(c10::kCPU)};
  }
  void copy_data(void* to, const void* from, size_t size) const override { std::memcpy(to, from, size); }
};

Allocator allocator;
c10::Allocator* usual = nullptr;  // torch's, while ours is in its place
int guards = 0;

}  // namespace

GuardedMemory::GuardedMemory(size_t size) : size_(size) {
  const size_t page = page_size();
  length_ = (size + page - 1) / page * page + 2 * page;
  void* base = mmap(nullptr, length_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) throw std::bad_alloc();
  base_ = static_cast<unsigned char*>(base);
  data_ = base_ + (length_ - page - size) / kAligned * kAligned;
  mprotect(base_, page, PROT_NONE);
  mprotect(base_ + length_ - page, page, PROT_NONE);
  std::memset(base_ + page, kNaN, length_ - 2 * page);
  living().insert(this);
}

GuardedMemory::~GuardedMemory() {
  living().erase(this);
  munmap(base_, length_);
}

void GuardedMemory::poison() const { std::memset(data_, kNaN, size_); }

bool GuardedMemory::is_damaged() const {
  const auto is_whole = [](unsigned char byte) { return byte == kNaN; };
  const size_t page = page_size();
  return !std::all_of(base_ + page, data_, is_whole) ||
         !std::all_of(data_ + size_, base_ + length_ - page, is_whole);
}

std::string where(const void* address) {
  const auto* at = static_cast<const unsigned char*>(address);
  for (const GuardedMemory* memory : living()) {
    if (at < memory->base_ || at >= memory->base_ + memory->length_) continue;
    return "byte " + std::to_string(at - memory->data_) + " of " + std::to_string(memory->size_);
  }
  return "an address outside of all tensors";
}

std::string damage() {
  for (const GuardedMemory* memory : living()) {
    if (memory->is_damaged()) return "beside " + std::to_string(memory->size_) + " bytes";
  }
  return "";
}

Guard::Guard() {
  if (guards++ > 0) return;
  usual = c10::GetCPUAllocator();
  c10::SetCPUAllocator(&allocator, kAllocatorPriority);
}

Guard::~Guard() {
  if (--guards == 0) c10::SetCPUAllocator(usual, kAllocatorPriority);
}

}  // namespace emulation
