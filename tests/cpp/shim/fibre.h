// A stack of its own and a way to switch to it and back, told to the sanitizers.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace shim {

#ifdef __x86_64__
// Pushes the callee's registers, stores the stack pointer to *from and goes on where `to` was stored.
extern "C" void shim_switch(void** from, void* to);
asm(R"(
.text
.local shim_switch
.type shim_switch, @function
shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
#endif

class Fibre {
 public:
  static constexpr size_t kStack = 1 << 17, kGuard = 1 << 12;

  // The thread's own stack.
  Fibre() {
#ifdef __SANITIZE_THREAD__
    tsan_ = __tsan_get_current_fiber();
#endif
  }

  // `entry` starts at the first switch and never returns.
  explicit Fibre(void (*entry)()) {
    void* memory =
        mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, kGuard, PROT_NONE);  // an overflow stops here
    stack_ = static_cast<std::byte*>(memory) + kGuard;
#ifdef __x86_64__
    void** top = reinterpret_cast<void**>(stack_ + kStack) - 8;  // six registers, the address to return to, its caller
    top[6] = reinterpret_cast<void*>(entry);
    stack_pointer_ = top;
#else
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_;
    context_.uc_stack.ss_size = kStack;
    makecontext(&context_, entry, 0);
#endif
#ifdef __SANITIZE_THREAD__
    tsan_ = __tsan_create_fiber(0);
#endif
  }

  ~Fibre() {
    if (!stack_) return;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stack_, kStack);
#elif defined(__SANITIZE_THREAD__)
    __tsan_destroy_fiber(tsan_);
#endif
    munmap(stack_ - kGuard, kGuard + kStack);
  }
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;

  // Leaves this one, which is running, for `to`; returns when someone switches back.
  void switch_to(Fibre& to) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake_stack;
    __sanitizer_start_switch_fiber(&fake_stack, to.stack_ ? to.stack_ : to.own_stack_,
                                   to.stack_ ? kStack : to.own_size_);
#elif defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to.tsan_, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef __x86_64__
    shim_switch(&stack_pointer_, to.stack_pointer_);
#else
    swapcontext(&context_, &to.context_);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
  }

  // The first thing an entry does: `from` is the thread's own stack, which started it.
  static void started_by([[maybe_unused]] Fibre& from) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &from.own_stack_, &from.own_size_);
#endif
  }

 private:
  std::byte* stack_ = nullptr;
#ifdef __x86_64__
  void* stack_pointer_ = nullptr;
#else
  ucontext_t context_;
#endif
#if defined(__SANITIZE_ADDRESS__)
  const void* own_stack_ = nullptr;
  size_t own_size_ = 0;
#elif defined(__SANITIZE_THREAD__)
  void* tsan_ = nullptr;
#endif
};

}  // namespace shim
