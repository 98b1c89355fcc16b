// What Swift cannot say: port instructions, the wait service and the symbols that
// boot.S and the linker script define.
#pragma once
#include <stdint.h>

extern const uint8_t art_start[];
extern uint8_t image_end[];
extern uint64_t start_info;
extern uint32_t pending_interrupts;

static inline const uint8_t *art_address(void) { return art_start; }
static inline uint64_t image_end_address(void) { return (uint64_t)image_end; }
static inline uint64_t start_info_address(void) { return start_info; }
void heap_initialize(uint64_t end);

static inline uint8_t port_in8(uint16_t port) {
  uint8_t value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}

static inline uint16_t port_in16(uint16_t port) {
  uint16_t value;
  __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}

static inline uint32_t port_in32(uint16_t port) {
  uint32_t value;
  __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}

static inline void port_out8(uint16_t port, uint8_t value) {
  __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void port_out16(uint16_t port, uint16_t value) {
  __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline void port_out32(uint16_t port, uint32_t value) {
  __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

// Sleeps until at least one interrupt line is pending, then takes the whole set.
static inline uint32_t wait_for_interrupts(void) {
  __asm__ volatile("ud2" : : "a"(0x74696177) : "memory", "cc");
  return __atomic_exchange_n(&pending_interrupts, 0, __ATOMIC_SEQ_CST);
}

// Takes what is pending without sleeping.
static inline uint32_t take_interrupts(void) {
  if (__atomic_load_n(&pending_interrupts, __ATOMIC_RELAXED) == 0) return 0;
  return __atomic_exchange_n(&pending_interrupts, 0, __ATOMIC_SEQ_CST);
}

// The VMware backdoor call: registers go both ways through an IN instruction.
typedef struct {
  uint32_t eax, ebx, ecx, edx;
} backdoor_registers;

static inline backdoor_registers backdoor_call(uint16_t command, uint32_t argument) {
  backdoor_registers r = {0x564D5868, argument, command, 0x5658};
  __asm__ volatile("inl %%dx, %%eax" : "+a"(r.eax), "+b"(r.ebx), "+c"(r.ecx), "+d"(r.edx));
  return r;
}

static inline uint64_t time_stamp(void) {
  return __builtin_ia32_rdtsc();
}
