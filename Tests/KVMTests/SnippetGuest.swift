import CKVM
import KVM
import LinuxSystem

/// A machine of one vCPU and 1 MiB of RAM that runs bytes in real mode at 0x1000.
final class SnippetGuest {
  static let origin: UInt64 = 0x1000
  let machine: KVMMachine
  let cpu: VirtualCPU
  let memory: SharedMemory
  let ram: MemoryMapping

  init(_ code: [UInt8], memory shared: SharedMemory? = nil) throws {
    let system = try KVMSystem()
    machine = try system.makeMachine()
    try machine.setRealModePages(tss: 0xFFFB_D000, identityMap: 0xFFFB_C000)
    memory = try shared ?? SharedMemory(name: "snippet", size: 1 << 20)
    ram = try memory.map()
    try machine.setMemory(slot: 0, at: 0, ram.bytes, .logDirtyPages)
    try machine.makeInterruptControllers()
    try machine.makeTimer()
    cpu = try machine.makeVCPU(identifier: 0)
    try cpu.setCPUID(try system.supportedCPUID())
    for (index, byte) in code.enumerated() { ram.bytes[Int(Self.origin) + index] = byte }
    var special = try cpu.specialRegisters()
    special.cs.base = 0
    special.cs.selector = 0
    try cpu.set(special)
    var registers = try cpu.registers()
    registers.rip = Self.origin
    registers.rsp = 0x8000
    registers.rflags = 2
    try cpu.set(registers)
  }

  /// Puts the vCPU into long mode at CPL 3, where the first 2 MiB and those at
  /// 0xD000_0000 are mapped for it to where they are.
  func enterUserMode(at address: UInt64) throws {
    let entries: [(Int, UInt64)] = [
      (0x1_0000, 0x1_1007), (0x1_1000, 0x1_2007), (0x1_1018, 0x1_3007), (0x1_2000, 0x87),
      (0x1_3000 + 128 * 8, 0xD000_0087),
    ]
    for (place, entry) in entries {
      ram.bytes.storeBytes(of: entry, toByteOffset: place, as: UInt64.self)
    }
    var special = try cpu.specialRegisters()
    special.cr0 = 0x8000_0011
    special.cr3 = 0x1_0000
    special.cr4 = 0x20
    special.efer = 0x500
    special.idt.limit = 0
    special.ss.selector = 0x2B
    special.ss.dpl = 3
    special.ss.type = 3
    special.ss.s = 1
    special.ss.present = 1
    special.ss.db = 1
    special.ss.g = 1
    special.ss.limit = 0xFFFF_FFFF
    special.cs = special.ss
    special.cs.selector = 0x33
    special.cs.type = 11
    special.cs.db = 0
    special.cs.l = 1
    for segment in [\kvm_sregs.ds, \.es, \.fs, \.gs] { special[keyPath: segment] = special.ss }
    special.tr.type = 11
    special.tr.present = 1
    special.tr.s = 0
    special.tr.limit = 0x67
    try cpu.set(special)
    var registers = try cpu.registers()
    registers.rip = address
    try cpu.set(registers)
  }
}
