// One function per KVM ioctl; each returns a value or -errno. The structures are
// the kernel's own, of its stable ABI.
#ifndef CKVM_H
#define CKVM_H

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

// System descriptor.
int ckvm_get_api_version(int kvm);
int ckvm_create_vm(int kvm);
int ckvm_check_extension(int kvm, int capability);
int ckvm_get_vcpu_mmap_size(int kvm);
/// Fills `entries`; returns how many, or -E2BIG.
int ckvm_get_supported_cpuid(int kvm, struct kvm_cpuid_entry2 *entries, uint32_t capacity);
/// Fills `indices` with the MSRs to save; returns how many, or -E2BIG.
int ckvm_get_msr_index_list(int kvm, uint32_t *indices, uint32_t capacity);

// Machine descriptor.
int ckvm_enable_capability(int vm, int capability, uint64_t argument);
int ckvm_set_memory_region(
  int vm, uint32_t slot, uint32_t flags, uint64_t guest, uint64_t size, void *host);
int ckvm_get_dirty_log(int vm, uint32_t slot, uint64_t *words);
int ckvm_set_tss_address(int vm, uint64_t address);
int ckvm_set_identity_map_address(int vm, uint64_t address);
int ckvm_create_irqchip(int vm);
int ckvm_create_pit(int vm);
int ckvm_irq_line(int vm, uint32_t gsi, int level);
int ckvm_signal_msi(int vm, uint64_t address, uint32_t data);
int ckvm_set_gsi_routing(int vm, const struct kvm_irq_routing_entry *entries, uint32_t count);
int ckvm_irqfd(int vm, int fd, uint32_t gsi, int assign);
/// `length` 0 matches any width; `match` restricts to writes of `value`.
int ckvm_ioeventfd(
  int vm, int fd, uint64_t address, uint32_t length, int is_port, int match, uint64_t value,
  int assign);
int ckvm_register_coalesced(int vm, uint64_t address, uint32_t size, int is_port);
int ckvm_unregister_coalesced(int vm, uint64_t address, uint32_t size, int is_port);
int ckvm_create_vcpu(int vm, uint32_t identifier);
int ckvm_get_irqchip(int vm, struct kvm_irqchip *state);
int ckvm_set_irqchip(int vm, const struct kvm_irqchip *state);
int ckvm_get_pit(int vm, struct kvm_pit_state2 *state);
int ckvm_set_pit(int vm, const struct kvm_pit_state2 *state);
int ckvm_get_clock(int vm, struct kvm_clock_data *state);
int ckvm_set_clock(int vm, const struct kvm_clock_data *state);

// vCPU descriptor.
int ckvm_run(int vcpu);
int ckvm_set_cpuid(int vcpu, const struct kvm_cpuid_entry2 *entries, uint32_t count);
int ckvm_get_regs(int vcpu, struct kvm_regs *state);
int ckvm_set_regs(int vcpu, const struct kvm_regs *state);
int ckvm_get_sregs(int vcpu, struct kvm_sregs *state);
int ckvm_set_sregs(int vcpu, const struct kvm_sregs *state);
int ckvm_get_fpu(int vcpu, struct kvm_fpu *state);
int ckvm_set_fpu(int vcpu, const struct kvm_fpu *state);
int ckvm_get_xsave(int vcpu, struct kvm_xsave *state);
/// For a guest whose state is larger than struct kvm_xsave (KVM_CAP_XSAVE2 gives the size).
int ckvm_get_xsave2(int vcpu, void *state);
int ckvm_set_xsave(int vcpu, const void *state);
int ckvm_get_xcrs(int vcpu, struct kvm_xcrs *state);
int ckvm_set_xcrs(int vcpu, const struct kvm_xcrs *state);
/// Returns how many of the leading entries were read or set.
int ckvm_get_msrs(int vcpu, struct kvm_msr_entry *entries, uint32_t count);
int ckvm_set_msrs(int vcpu, const struct kvm_msr_entry *entries, uint32_t count);
int ckvm_get_lapic(int vcpu, struct kvm_lapic_state *state);
int ckvm_set_lapic(int vcpu, const struct kvm_lapic_state *state);
int ckvm_get_vcpu_events(int vcpu, struct kvm_vcpu_events *state);
int ckvm_set_vcpu_events(int vcpu, const struct kvm_vcpu_events *state);
int ckvm_get_mp_state(int vcpu, struct kvm_mp_state *state);
int ckvm_set_mp_state(int vcpu, const struct kvm_mp_state *state);
int ckvm_get_debug_registers(int vcpu, struct kvm_debugregs *state);
int ckvm_set_debug_registers(int vcpu, const struct kvm_debugregs *state);
int ckvm_translate(int vcpu, struct kvm_translation *translation);
int ckvm_kvmclock_ctrl(int vcpu);
int ckvm_inject_nmi(int vcpu);

// The page shared with a running vCPU, read without Swift's view of nested unions.
struct ckvm_io {
  uint8_t is_write;
  uint8_t size;
  uint16_t port;
  uint32_t count;
  uint64_t data_offset;
};
struct ckvm_mmio {
  uint64_t address;
  uint8_t *data;
  uint32_t length;
  uint8_t is_write;
};
struct ckvm_internal_error {
  uint32_t suberror;
  uint8_t instruction_size;
  uint8_t instruction[15];
  uint32_t data_count;
  uint64_t data[16];
};
static inline uint32_t ckvm_exit_reason(const struct kvm_run *run) { return run->exit_reason; }
static inline void ckvm_set_immediate_exit(struct kvm_run *run, uint8_t on) {
  __atomic_store_n(&run->immediate_exit, on, __ATOMIC_SEQ_CST);
}
struct ckvm_io ckvm_exit_io(const struct kvm_run *run);
struct ckvm_mmio ckvm_exit_mmio(struct kvm_run *run);
struct ckvm_internal_error ckvm_exit_internal_error(const struct kvm_run *run);
uint64_t ckvm_exit_hardware_reason(const struct kvm_run *run);
uint32_t ckvm_exit_system_event(const struct kvm_run *run);
/// Takes the oldest entry from the ring of coalesced writes; 0 when it is empty.
int ckvm_take_coalesced(
  struct kvm_run *run, uint32_t page_offset, uint64_t *address, uint32_t *length,
  uint64_t *value, int *is_port);

#endif
