import KVM
import LinuxSystem
import TestSupport
import Testing

@Suite("KVM without a device")
struct MissingKVMTests {
  @Test("a host without /dev/kvm is told how to get one")
  func missing() {
    let error = #expect(throws: KVMError.self) { try KVMSystem(path: "/dev/no-kvm") }
    #expect(error?.kind == .missing)
    #expect(error?.context.contains("kvm_intel") == true)
  }

  @Test("a file that is not KVM's device is refused")
  func wrongFile() {
    let error = #expect(throws: KVMError.self) { try KVMSystem(path: "/dev/null") }
    #expect(error?.kind == .apiVersion)
    #expect(error?.context.contains("/dev/null is not KVM's device") == true)
  }

  @Test("a device that may not be opened is named with the group that may")
  func forbidden() {
    // Not even root may write it.
    let path = "/sys/kernel/uevent_seqnum"
    let error = #expect(throws: KVMError.self) { try KVMSystem(path: path) }
    #expect(error?.kind == .forbidden)
    #expect(
      error?.context.contains("\(path) may not be opened: add this user to the group") == true)
  }

  @Test("an API of another number is refused with both numbers", arguments: [11, 13])
  func version(number: Int32) {
    let error = KVMSystem.problem(withVersion: number, of: "/dev/kvm")
    #expect(error?.kind == .apiVersion)
    #expect(
      error?.context
        == "/dev/kvm speaks KVM API version \(number), 12 is needed: update the host's kernel")
    #expect(KVMSystem.problem(withVersion: 12, of: "/dev/kvm") == nil)
  }
}

@Suite("KVM", .needsKVM)
struct KVMTests {
  @Test("a missing capability is named, with the remedy")
  func missingCapability() {
    let error = #expect(throws: KVMError.self) {
      try KVMSystem(required: [KVMCapability(99999, "KVM_CAP_OF_TOMORROW")])
    }
    #expect(error?.kind == .capabilityMissing)
    #expect(error?.context.contains("KVM_CAP_OF_TOMORROW") == true)
    #expect(error?.context.contains("update") == true)
  }

  @Test("a port write exits with its value, a port read takes ours")
  func portAccess() throws {
    // mov al,0x5a; out 0xe9,al; in al,0xb0; mov [0x2000],al; out 0xe9,al
    let guest = try SnippetGuest([
      0xB0, 0x5A, 0xE6, 0xE9, 0xE4, 0xB0, 0xA2, 0x00, 0x20, 0xE6, 0xE9,
    ])
    guard case .port(0xE9, 1, 1, true, let written) = try guest.cpu.run() else {
      Issue.record("no port write")
      return
    }
    #expect(written[0] == 0x5A)
    guard case .port(0xB0, 1, 1, false, let wanted) = try guest.cpu.run() else {
      Issue.record("no port read")
      return
    }
    wanted[0] = 0x77
    guard case .port(0xE9, 1, 1, true, let echoed) = try guest.cpu.run() else {
      Issue.record("no second port write")
      return
    }
    #expect(echoed[0] == 0x77)
    #expect(guest.ram.bytes[0x2000] == 0x77)
  }

  @Test("a repeated string output arrives complete")
  func stringOutput() throws {
    // mov si,0x3000; mov cx,5; mov dx,0x402; cld; rep outsb; out 0xe9,al
    let guest = try SnippetGuest([
      0xBE, 0x00, 0x30, 0xB9, 0x05, 0x00, 0xBA, 0x02, 0x04, 0xFC, 0xF3, 0x6E, 0xE6, 0xE9,
    ])
    for (index, byte) in "hello".utf8.enumerated() { guest.ram.bytes[0x3000 + index] = byte }
    var text: [UInt8] = []
    loop: while true {
      switch try guest.cpu.run() {
      case .port(0x402, 1, _, true, let data): text += Array(data)
      default: break loop
      }
    }
    #expect(text == Array("hello".utf8))
  }

  @Test("a write beyond RAM exits as MMIO with address and value")
  func memoryAccess() throws {
    // 0xffff:0x10 is 0x100000, the first byte beyond RAM.
    // mov ax,0xffff; mov ds,ax; mov word [0x0010],0x1234
    let guest = try SnippetGuest([
      0xB8, 0xFF, 0xFF, 0x8E, 0xD8, 0xC7, 0x06, 0x10, 0x00, 0x34, 0x12,
    ])
    guard case .memory(let address, true, let data) = try guest.cpu.run() else {
      Issue.record("no MMIO")
      return
    }
    #expect(address == 0x10_0000)
    #expect(Array(data) == [0x34, 0x12])
  }

  @Test("the dirty log tells exactly the pages written since it was last read")
  func dirtyLog() throws {
    // out 0xe9,al; mov byte [0x5000],1; mov byte [0x7000],1; out 0xe9,al
    let guest = try SnippetGuest([
      0xE6, 0xE9, 0xC6, 0x06, 0x00, 0x50, 0x01, 0xC6, 0x06, 0x00, 0x70, 0x01, 0xE6, 0xE9,
    ])
    var words = [UInt64](repeating: 0, count: 4)
    _ = try guest.cpu.run()
    try guest.machine.takeDirtyLog(slot: 0, into: &words)
    _ = try guest.cpu.run()
    try guest.machine.takeDirtyLog(slot: 0, into: &words)
    #expect(words == [1 << 5 | 1 << 7, 0, 0, 0])
    try guest.machine.takeDirtyLog(slot: 0, into: &words)
    #expect(words == [0, 0, 0, 0])
  }

  @Test("a triple fault is a shutdown exit")
  func tripleFault() throws {
    // lidt [0x2000] (limit 0); mov eax,cr0; or al,1; mov cr0,eax; ud2
    let guest = try SnippetGuest([
      0x0F, 0x01, 0x1E, 0x00, 0x20, 0x0F, 0x20, 0xC0, 0x0C, 0x01, 0x0F, 0x22, 0xC0, 0x0F, 0x0B,
    ])
    guard case .shutdown = try guest.cpu.run() else {
      Issue.record("no shutdown exit")
      return
    }
  }

  @Test("an instruction at CPL 3 that KVM cannot emulate is told of, with its bytes")
  func emulationFailure() throws {
    // mov ebx,0xd0000000; popcnt eax,[rbx]: no memory there, and POPCNT not emulated
    let code: [UInt8] = [0xBB, 0x00, 0x00, 0x00, 0xD0, 0xF3, 0x0F, 0xB8, 0x03]
    let guest = try SnippetGuest(code)
    try guest.machine.setExitsOnEmulationFailure()
    try guest.enterUserMode(at: SnippetGuest.origin)
    guard case .internalError(let error) = try guest.cpu.run() else {
      Issue.record("no internal error")
      return
    }
    #expect(error.suberror == 1)
    #expect(Array(error.instruction.prefix(4)) == [0xF3, 0x0F, 0xB8, 0x03])
    #expect(try guest.cpu.registers().rip == SnippetGuest.origin + 5)
    #expect(try guest.cpu.specialRegisters().cs.selector & 3 == 3)
  }

  @Test("a kick ends an endless loop")
  func kick() throws {
    let guest = try SnippetGuest([0xEB, 0xFE])
    guest.cpu.kick()
    guard case .interrupted = try guest.cpu.run() else {
      Issue.record("not interrupted")
      return
    }
  }

  @Test("a doorbell write signals its eventfd without an exit")
  func doorbell() throws {
    // out 0xc1,al; out 0xe9,al
    let guest = try SnippetGuest([0xE6, 0xC1, 0xE6, 0xE9])
    let event = try EventDescriptor()
    try guest.machine.attach(event, to: .init(address: 0xC1, width: 1, isPort: true))
    guard case .port(0xE9, _, _, _, _) = try guest.cpu.run() else {
      Issue.record("the doorbell exited")
      return
    }
    #expect(event.drain())
  }

  @Test("an interrupt line wakes a halted guest through PIC and vector")
  func interruptLine() throws {
    // PIC init: ICW1..4 with vectors at 0x20, mask all but IRQ 4, sti, hlt
    let code: [UInt8] = [
      0xB0, 0x11, 0xE6, 0x20, 0xB0, 0x20, 0xE6, 0x21, 0xB0, 0x04, 0xE6, 0x21, 0xB0, 0x01, 0xE6,
      0x21, 0xB0, 0xEF, 0xE6, 0x21, 0xE6, 0xE9, 0xFB, 0xF4, 0xEB, 0xFD,
    ]
    let guest = try SnippetGuest(code)
    // Vector 0x24 → 0:0x4000: mov al,0x99; out 0xe9,al
    guest.ram.bytes.storeBytes(of: 0x4000, toByteOffset: 0x24 * 4, as: UInt32.self)
    for (index, byte) in [UInt8](arrayLiteral: 0xB0, 0x99, 0xE6, 0xE9).enumerated() {
      guest.ram.bytes[0x4000 + index] = byte
    }
    guard case .port(0xE9, _, _, _, _) = try guest.cpu.run() else {
      Issue.record("no start")
      return
    }
    let event = try EventDescriptor()
    try guest.machine.attachInterrupt(event, gsi: 4)
    event.signal()
    guard case .port(0xE9, _, _, _, let data) = try guest.cpu.run() else {
      Issue.record("no interrupt")
      return
    }
    #expect(data[0] == 0x99)
  }

  @Test("completing the read of a read-modify-write brings its write")
  func completionInParts() throws {
    // mov ax,0xffff; mov ds,ax; inc byte [0x0010]; out 0xe9,al
    let guest = try SnippetGuest([
      0xB8, 0xFF, 0xFF, 0x8E, 0xD8, 0xFE, 0x06, 0x10, 0x00, 0xE6, 0xE9,
    ])
    guard case .memory(0x10_0000, false, let wanted) = try guest.cpu.run() else {
      Issue.record("no read")
      return
    }
    wanted[0] = 0x41
    guard case .memory(0x10_0000, true, let written) = try guest.cpu.completeAccess() else {
      Issue.record("the write got lost")
      return
    }
    #expect(written[0] == 0x42)
    guard case .interrupted = try guest.cpu.completeAccess() else {
      Issue.record("more than a read and a write")
      return
    }
  }

  @Test("a vCPU saved after a port write goes on in another machine")
  func saveAndRestore() throws {
    // mov cx,7; mov al,cl; out 0xe9,al; inc cx; add al,0x40; out 0xe9,al; mov al,cl; out 0xe9,al
    let guest = try SnippetGuest([
      0xB9, 0x07, 0x00, 0x88, 0xC8, 0xE6, 0xE9, 0x41, 0x04, 0x40, 0xE6, 0xE9, 0x88, 0xC8, 0xE6,
      0xE9,
    ])
    _ = try guest.cpu.run()
    _ = try guest.cpu.run()
    guard case .interrupted = try guest.cpu.completeAccess() else {
      Issue.record("the write was not the last part of its instruction")
      return
    }
    let state = try guest.cpu.saveState()
    let chips = try guest.machine.saveState()
    let other = try SnippetGuest([], memory: guest.memory)
    try other.machine.restore(chips)
    try other.cpu.restore(state)
    guard case .port(0xE9, _, _, true, let data) = try other.cpu.run() else {
      Issue.record("did not go on")
      return
    }
    #expect(data[0] == 8)
    #expect(state.modelSpecificRegisters.count > 10)
  }
}
