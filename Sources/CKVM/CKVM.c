#define _GNU_SOURCE
#include "CKVM.h"

#define PAGE_SIZE 4096  // linux/kvm.h sizes the ring of coalesced writes by it

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

static int call(int fd, unsigned long request, const void *argument) {
  int result = ioctl(fd, request, argument);
  return result < 0 ? -errno : result;
}

static int call_value(int fd, unsigned long request, unsigned long argument) {
  int result = ioctl(fd, request, argument);
  return result < 0 ? -errno : result;
}

int ckvm_get_api_version(int kvm) { return call_value(kvm, KVM_GET_API_VERSION, 0); }
int ckvm_create_vm(int kvm) { return call_value(kvm, KVM_CREATE_VM, 0); }
int ckvm_check_extension(int kvm, int capability) {
  return call_value(kvm, KVM_CHECK_EXTENSION, (unsigned long)capability);
}
int ckvm_get_vcpu_mmap_size(int kvm) { return call_value(kvm, KVM_GET_VCPU_MMAP_SIZE, 0); }

int ckvm_get_supported_cpuid(int kvm, struct kvm_cpuid_entry2 *entries, uint32_t capacity) {
  struct kvm_cpuid2 *list = calloc(1, sizeof *list + capacity * sizeof *entries);
  if (!list) return -ENOMEM;
  list->nent = capacity;
  int result = call(kvm, KVM_GET_SUPPORTED_CPUID, list);
  if (result >= 0) {
    memcpy(entries, list->entries, list->nent * sizeof *entries);
    result = (int)list->nent;
  }
  free(list);
  return result;
}

int ckvm_get_msr_index_list(int kvm, uint32_t *indices, uint32_t capacity) {
  struct kvm_msr_list *list = calloc(1, sizeof *list + capacity * sizeof *indices);
  if (!list) return -ENOMEM;
  list->nmsrs = capacity;
  int result = call(kvm, KVM_GET_MSR_INDEX_LIST, list);
  if (result >= 0) {
    memcpy(indices, list->indices, list->nmsrs * sizeof *indices);
    result = (int)list->nmsrs;
  }
  free(list);
  return result;
}

int ckvm_enable_capability(int vm, int capability, uint64_t argument) {
  struct kvm_enable_cap request = {.cap = (uint32_t)capability, .args = {argument}};
  return call(vm, KVM_ENABLE_CAP, &request);
}

int ckvm_set_memory_region(
  int vm, uint32_t slot, uint32_t flags, uint64_t guest, uint64_t size, void *host) {
  struct kvm_userspace_memory_region region = {
    .slot = slot,
    .flags = flags,
    .guest_phys_addr = guest,
    .memory_size = size,
    .userspace_addr = (uintptr_t)host};
  return call(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

int ckvm_get_dirty_log(int vm, uint32_t slot, uint64_t *words) {
  struct kvm_dirty_log log = {.slot = slot, .dirty_bitmap = words};
  return call(vm, KVM_GET_DIRTY_LOG, &log);
}

int ckvm_set_tss_address(int vm, uint64_t address) {
  return call_value(vm, KVM_SET_TSS_ADDR, address);
}
int ckvm_set_identity_map_address(int vm, uint64_t address) {
  return call(vm, KVM_SET_IDENTITY_MAP_ADDR, &address);
}
int ckvm_create_irqchip(int vm) { return call_value(vm, KVM_CREATE_IRQCHIP, 0); }

int ckvm_create_pit(int vm) {
  /* Without the kernel's dummy speaker: port 0x61 rings the bell. */
  struct kvm_pit_config config = {.flags = 0};
  return call(vm, KVM_CREATE_PIT2, &config);
}

int ckvm_irq_line(int vm, uint32_t gsi, int level) {
  struct kvm_irq_level request = {.irq = gsi, .level = (uint32_t)level};
  return call(vm, KVM_IRQ_LINE, &request);
}

int ckvm_signal_msi(int vm, uint64_t address, uint32_t data) {
  struct kvm_msi message = {
    .address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data};
  return call(vm, KVM_SIGNAL_MSI, &message);
}

int ckvm_set_gsi_routing(int vm, const struct kvm_irq_routing_entry *entries, uint32_t count) {
  struct kvm_irq_routing *table = calloc(1, sizeof *table + count * sizeof *entries);
  if (!table) return -ENOMEM;
  table->nr = count;
  memcpy(table->entries, entries, count * sizeof *entries);
  int result = call(vm, KVM_SET_GSI_ROUTING, table);
  free(table);
  return result;
}

int ckvm_irqfd(int vm, int fd, uint32_t gsi, int assign) {
  struct kvm_irqfd request = {
    .fd = (uint32_t)fd, .gsi = gsi, .flags = assign ? 0 : KVM_IRQFD_FLAG_DEASSIGN};
  return call(vm, KVM_IRQFD, &request);
}

int ckvm_ioeventfd(
  int vm, int fd, uint64_t address, uint32_t length, int is_port, int match, uint64_t value,
  int assign) {
  struct kvm_ioeventfd request = {
    .datamatch = value, .addr = address, .len = length, .fd = fd};
  if (is_port) request.flags |= KVM_IOEVENTFD_FLAG_PIO;
  if (match) request.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
  if (!assign) request.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
  return call(vm, KVM_IOEVENTFD, &request);
}

static int coalesced_zone(
  int vm, unsigned long request, uint64_t address, uint32_t size, int is_port) {
  struct kvm_coalesced_mmio_zone zone = {
    .addr = address, .size = size, .pio = (uint32_t)is_port};
  return call(vm, request, &zone);
}

int ckvm_register_coalesced(int vm, uint64_t address, uint32_t size, int is_port) {
  return coalesced_zone(vm, KVM_REGISTER_COALESCED_MMIO, address, size, is_port);
}

int ckvm_unregister_coalesced(int vm, uint64_t address, uint32_t size, int is_port) {
  return coalesced_zone(vm, KVM_UNREGISTER_COALESCED_MMIO, address, size, is_port);
}

int ckvm_create_vcpu(int vm, uint32_t identifier) {
  return call_value(vm, KVM_CREATE_VCPU, identifier);
}

#define STATE(name, request_get, request_set, type) \
  int ckvm_get_##name(int fd, type *state) { return call(fd, request_get, state); } \
  int ckvm_set_##name(int fd, const type *state) { return call(fd, request_set, state); }

STATE(irqchip, KVM_GET_IRQCHIP, KVM_SET_IRQCHIP, struct kvm_irqchip)
STATE(pit, KVM_GET_PIT2, KVM_SET_PIT2, struct kvm_pit_state2)
STATE(clock, KVM_GET_CLOCK, KVM_SET_CLOCK, struct kvm_clock_data)
STATE(regs, KVM_GET_REGS, KVM_SET_REGS, struct kvm_regs)
STATE(sregs, KVM_GET_SREGS, KVM_SET_SREGS, struct kvm_sregs)
STATE(fpu, KVM_GET_FPU, KVM_SET_FPU, struct kvm_fpu)
STATE(xcrs, KVM_GET_XCRS, KVM_SET_XCRS, struct kvm_xcrs)
STATE(lapic, KVM_GET_LAPIC, KVM_SET_LAPIC, struct kvm_lapic_state)
STATE(vcpu_events, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, struct kvm_vcpu_events)
STATE(mp_state, KVM_GET_MP_STATE, KVM_SET_MP_STATE, struct kvm_mp_state)
STATE(debug_registers, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, struct kvm_debugregs)

int ckvm_get_xsave(int vcpu, struct kvm_xsave *state) { return call(vcpu, KVM_GET_XSAVE, state); }
int ckvm_get_xsave2(int vcpu, void *state) { return call(vcpu, KVM_GET_XSAVE2, state); }
int ckvm_set_xsave(int vcpu, const void *state) { return call(vcpu, KVM_SET_XSAVE, state); }

int ckvm_run(int vcpu) { return call_value(vcpu, KVM_RUN, 0); }

int ckvm_set_cpuid(int vcpu, const struct kvm_cpuid_entry2 *entries, uint32_t count) {
  struct kvm_cpuid2 *list = calloc(1, sizeof *list + count * sizeof *entries);
  if (!list) return -ENOMEM;
  list->nent = count;
  memcpy(list->entries, entries, count * sizeof *entries);
  int result = call(vcpu, KVM_SET_CPUID2, list);
  free(list);
  return result;
}

int ckvm_get_msrs(int vcpu, struct kvm_msr_entry *entries, uint32_t count) {
  struct kvm_msrs *list = calloc(1, sizeof *list + count * sizeof *entries);
  if (!list) return -ENOMEM;
  list->nmsrs = count;
  memcpy(list->entries, entries, count * sizeof *entries);
  int result = call(vcpu, KVM_GET_MSRS, list);
  if (result >= 0) memcpy(entries, list->entries, count * sizeof *entries);
  free(list);
  return result;
}

int ckvm_set_msrs(int vcpu, const struct kvm_msr_entry *entries, uint32_t count) {
  struct kvm_msrs *list = calloc(1, sizeof *list + count * sizeof *entries);
  if (!list) return -ENOMEM;
  list->nmsrs = count;
  memcpy(list->entries, entries, count * sizeof *entries);
  int result = call(vcpu, KVM_SET_MSRS, list);
  free(list);
  return result;
}

int ckvm_translate(int vcpu, struct kvm_translation *translation) {
  return call(vcpu, KVM_TRANSLATE, translation);
}
int ckvm_kvmclock_ctrl(int vcpu) { return call_value(vcpu, KVM_KVMCLOCK_CTRL, 0); }
int ckvm_inject_nmi(int vcpu) { return call_value(vcpu, KVM_NMI, 0); }

struct ckvm_io ckvm_exit_io(const struct kvm_run *run) {
  return (struct ckvm_io){
    .is_write = run->io.direction == KVM_EXIT_IO_OUT,
    .size = run->io.size,
    .port = run->io.port,
    .count = run->io.count,
    .data_offset = run->io.data_offset};
}

struct ckvm_mmio ckvm_exit_mmio(struct kvm_run *run) {
  return (struct ckvm_mmio){
    .address = run->mmio.phys_addr,
    .data = run->mmio.data,
    .length = run->mmio.len,
    .is_write = run->mmio.is_write};
}

struct ckvm_internal_error ckvm_exit_internal_error(const struct kvm_run *run) {
  struct ckvm_internal_error error = {.suberror = run->internal.suberror};
  error.data_count = run->internal.ndata <= 16 ? run->internal.ndata : 16;
  memcpy(error.data, run->internal.data, error.data_count * sizeof error.data[0]);
  if (error.suberror == KVM_INTERNAL_ERROR_EMULATION && error.data_count >= 3 &&
      run->emulation_failure.flags &
        KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) {
    uint8_t size = run->emulation_failure.insn_size;
    error.instruction_size = size <= 15 ? size : 15;
    memcpy(error.instruction, run->emulation_failure.insn_bytes, 15);
  }
  return error;
}

uint64_t ckvm_exit_hardware_reason(const struct kvm_run *run) {
  return run->fail_entry.hardware_entry_failure_reason;
}

uint32_t ckvm_exit_system_event(const struct kvm_run *run) { return run->system_event.type; }

int ckvm_take_coalesced(
  struct kvm_run *run, uint32_t page_offset, uint64_t *address, uint32_t *length,
  uint64_t *value, int *is_port) {
  struct kvm_coalesced_mmio_ring *ring =
    (struct kvm_coalesced_mmio_ring *)((char *)run + page_offset * 4096UL);
  uint32_t first = ring->first;
  if (first == __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE)) return 0;
  if (first >= KVM_COALESCED_MMIO_MAX) return 0;
  const struct kvm_coalesced_mmio *entry = &ring->coalesced_mmio[first];
  *address = entry->phys_addr;
  *length = entry->len <= 8 ? entry->len : 8;
  *is_port = (int)entry->pio;
  *value = 0;
  memcpy(value, entry->data, *length);
  __atomic_store_n(&ring->first, (first + 1) % KVM_COALESCED_MMIO_MAX, __ATOMIC_RELEASE);
  return 1;
}
