import CKVM
import KVM

/// Register states that boot protocols ask for.
enum BootState {
  private static let codeSelector: UInt16 = 0x10
  private static let dataSelector: UInt16 = 0x18

  /// PVH: 32-bit protected mode without paging, flat segments, EBX at the start
  /// information (Xen, misc/pvh.pandoc).
  static func enterPVH(_ cpu: VirtualCPU, entry: UInt32, startInfo: UInt64) throws(KVMError) {
    try setProtectedMode(cpu)
    var registers = kvm_regs()
    registers.rflags = 2
    registers.rip = UInt64(entry)
    registers.rbx = startInfo
    try cpu.set(registers)
  }

  /// Linux's 64-bit protocol: long mode, identity-mapped, RSI at the boot
  /// parameters, selectors 0x10 and 0x18 (Linux, Documentation/arch/x86/boot.rst).
  static func enterLinux64(
    _ cpu: VirtualCPU, entry: UInt64, bootParameters: UInt64, pageTables: UInt64,
    descriptorTable: UInt64
  ) throws(KVMError) {
    var special = try cpu.specialRegisters()
    setFlatSegments(&special, longMode: true)
    setDescriptorTable(&special, descriptorTable)
    special.idt.base = 0
    special.idt.limit = 0
    special.cr0 = 0x8000_0011
    special.cr3 = pageTables
    special.cr4 = 0x20
    special.efer = 0x500
    try cpu.set(special)
    try setLinuxRegisters(cpu, entry: entry, bootParameters: bootParameters)
  }

  /// Linux's 32-bit protocol: protected mode without paging, flat segments with selectors
  /// 0x10 and 0x18, ESI at the boot parameters, EBP, EDI and EBX zero.
  static func enterLinux32(
    _ cpu: VirtualCPU, entry: UInt32, bootParameters: UInt64, descriptorTable: UInt64
  ) throws(KVMError) {
    try setProtectedMode(cpu, descriptorTable: descriptorTable)
    try setLinuxRegisters(cpu, entry: UInt64(entry), bootParameters: bootParameters)
  }

  /// Without paging, flat segments.
  private static func setProtectedMode(
    _ cpu: VirtualCPU, descriptorTable: UInt64? = nil
  ) throws(KVMError) {
    var special = try cpu.specialRegisters()
    setFlatSegments(&special, longMode: false)
    if let descriptorTable { setDescriptorTable(&special, descriptorTable) }
    special.cr0 = 0x11
    special.cr3 = 0
    special.cr4 = 0
    special.efer = 0
    try cpu.set(special)
  }

  private static func setDescriptorTable(_ special: inout kvm_sregs, _ address: UInt64) {
    special.gdt.base = address
    special.gdt.limit = UInt16(descriptorTableSize - 1)
  }

  /// What both of Linux's protocols have in the general registers: the others are zero.
  private static func setLinuxRegisters(
    _ cpu: VirtualCPU, entry: UInt64, bootParameters: UInt64
  ) throws(KVMError) {
    var registers = kvm_regs()
    registers.rflags = 2
    registers.rip = entry
    registers.rsi = bootParameters
    registers.rsp = bootParameters - 16
    try cpu.set(registers)
  }

  /// Level 4, level 3, and four directories.
  static let pageTablesSize = 6 * 4096
  static let descriptorTableSize = 32

  /// The first 4 GiB in pages of 2 MiB, and a descriptor table with code and data.
  static func writeLongModeTables(
    _ memory: some BootMemory, pageTables: UInt64, descriptorTable: UInt64
  ) throws {
    var tables = LittleEndianBytes()
    let directories = pageTables + 0x2000
    tables.append((pageTables + 0x1000) | 3)
    for _ in 1..<512 { tables.append(UInt64(0)) }
    for index in UInt64(0)..<512 {
      tables.append(index < 4 ? (directories + index * 0x1000) | 3 : 0)
    }
    for page in UInt64(0)..<2048 { tables.append(page << 21 | 0x83) }
    try memory.write(tables.bytes, at: pageTables)
    try writeDescriptorTable(memory, at: descriptorTable, isLong: true)
  }

  /// Code and data at the selectors that Linux wants.
  static func writeDescriptorTable(
    _ memory: some BootMemory, at address: UInt64, isLong: Bool
  ) throws {
    let code: UInt64 = isLong ? 0x00AF_9B00_0000_FFFF : 0x00CF_9B00_0000_FFFF
    var descriptors = LittleEndianBytes()
    for descriptor in [0, 0, code, 0x00CF_9300_0000_FFFF] { descriptors.append(descriptor) }
    try memory.write(descriptors.bytes, at: address)
  }

  private static func setFlatSegments(_ special: inout kvm_sregs, longMode: Bool) {
    var data = kvm_segment()
    data.limit = 0xFFFF_FFFF
    data.selector = dataSelector
    data.type = 3
    data.present = 1
    data.s = 1
    data.db = 1
    data.g = 1
    var code = data
    code.selector = codeSelector
    code.type = 11
    code.db = longMode ? 0 : 1
    code.l = longMode ? 1 : 0
    special.cs = code
    special.ds = data
    special.es = data
    special.fs = data
    special.gs = data
    special.ss = data
    var task = kvm_segment()
    task.limit = 0x67
    task.type = 11
    task.present = 1
    special.tr = task
  }
}
