import CKVM

/// Completes arbitrary bytes as instructions of a guest in an arbitrary state. Shared by
/// the fuzz target and the tests.
package enum CompletionFuzzing {
  /// Interprets `program` as registers, memory and code.
  ///
  /// - Returns: whether an exception or a refusal left the state outside memory alone.
  package static func run(_ program: [UInt8]) -> Bool {
    var rest = program[...]
    func byte() -> UInt8 { rest.popFirst() ?? 0 }
    let port = Port()
    var state = ProcessorState(general: kvm_regs(), special: kvm_sregs())
    let mode = byte()
    describe(&state, mode)
    for register in 0..<16 { state[register] = address(byte(), byte()) }
    state.general.rflags = UInt64(byte()) | UInt64(byte()) << 8 | UInt64(byte() & 7) << 16 | 2
    for index in stride(from: 0, to: 2048, by: 16) { port.bytes[index] = byte() }
    port.area[512] = byte()
    let before = port.area
    switch InstructionCompletion.complete(Array(rest.prefix(15)), state, port) {
    case .completed: return port.bytes.count == Port.size
    case .exception, .notCovered, .host: return port.area == before
    }
  }

  /// Mostly places in the small memory, sometimes its ends and beyond.
  private static func address(_ low: UInt8, _ high: UInt8) -> UInt64 {
    let near = UInt64(low) << 4 | UInt64(high & 0xF)
    switch high >> 6 {
    case 0: return near
    case 1: return near &+ UInt64(Port.size) &- 64
    case 2: return UInt64(bitPattern: Int64(Int8(bitPattern: low)))
    default: return near << 40
    }
  }

  private static func describe(_ state: inout ProcessorState, _ mode: UInt8) {
    state.special.cr0 = mode & 1 == 0 ? 0x21 : 0x8001_0021
    if mode & 2 != 0 { state.special.efer = 1 << 10 }
    if mode & 0x80 != 0 { state.special.cr0 &= ~1 }
    state.special.cr4 = 1 << 5 | 1 << 9 | 1 << 16 | 1 << 18 | (mode & 4 == 0 ? 0 : 1 << 21)
    var segment = kvm_segment()
    segment.limit = mode & 8 == 0 ? 0xFFFF_FFFF : 0xFFF
    segment.type = mode & 0x10 == 0 ? 3 : 7
    segment.dpl = mode >> 5 & 3
    segment.present = 1
    segment.s = 1
    (state.special.ss, state.special.ds, state.special.es) = (segment, segment, segment)
    (state.special.fs, state.special.gs) = (segment, segment)
    segment.type = 11
    segment.l = mode & 2 != 0 ? 1 : 0
    state.special.cs = segment
    state.special.gdt.limit = 0x7F
    state.special.idt.base = 0x80
    state.special.idt.limit = 0x3FF
  }

  private final class Port: CompletionPort {
    static let size = 1 << 13
    var bytes = [UInt8](repeating: 0, count: Port.size)
    var area = [UInt8](repeating: 0, count: 1088)
    let components = [
      ExtendedComponent(number: 2, size: 256, offset: 576, isAligned: false),
      // One that reaches beyond the area that the host gave.
      ExtendedComponent(number: 9, size: 512, offset: 1000, isAligned: true),
    ]

    private func range(_ address: UInt64, _ count: Int) -> Range<Int>? {
      guard address < UInt64(Port.size), count <= Port.size - Int(address) else { return nil }
      return Int(address)..<Int(address) + count
    }

    func readPhysical(_ address: UInt64, count: Int) -> [UInt8] {
      range(address, count).map { Array(bytes[$0]) } ?? Array(repeating: 0xFF, count: count)
    }

    func writePhysical(_ address: UInt64, _ new: [UInt8]) {
      if let range = range(address, new.count) { bytes.replaceSubrange(range, with: new) }
    }

    func setBits(_ bits: UInt32, physical address: UInt64) {
      let word = UInt64(littleEndian: readPhysical(address, count: 4)) | UInt64(bits)
      writePhysical(address, word.bytes(4))
    }

    func compareExchange(
      _ expected: [UInt8], _ new: [UInt8], physical address: UInt64
    ) -> [UInt8] {
      let before = readPhysical(address, count: new.count)
      if before == expected { writePhysical(address, new) }
      return before
    }

    func modelSpecificRegister(_ index: UInt32) throws(CompletionStop) -> UInt64 {
      guard index != 0xDA0 else { return 1 << 9 }
      return UInt64(index)
    }

    func setModelSpecificRegister(_ index: UInt32, _ value: UInt64) throws(CompletionStop) {}
    func extendedControlRegister() -> UInt64 { 7 }
    func setExtendedControlRegister(_ value: UInt64) throws(CompletionStop) {}
    func extendedState() -> [UInt8] { area }
    func setExtendedState(_ new: [UInt8]) { area = new }
    func flushTranslations() {}
    func random() -> UInt64 { 4 }
  }
}
