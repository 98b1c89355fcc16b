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
}
