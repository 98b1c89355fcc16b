import CKVM

import Machine

/// Memory and state for instructions that are completed without a machine around them.
final class TestPort: CompletionPort {
  var memory = [UInt8](repeating: 0, count: 0x20_0000)
  var registers: [UInt32: UInt64] = [:]
  var controlRegister: UInt64 = 7
  var area = [UInt8](repeating: 0, count: 4096)
  var components: [ExtendedComponent] = []
  var flushes = 0
  var randomNumbers: [UInt64] = []

  private func range(_ address: UInt64, _ count: Int) -> Range<Int>? {
    guard address < UInt64(memory.count), count <= memory.count - Int(address) else { return nil }
    return Int(address)..<Int(address) + count
  }

  func readPhysical(_ address: UInt64, count: Int) -> [UInt8] {
    range(address, count).map { Array(memory[$0]) } ?? Array(repeating: 0xFF, count: count)
  }

  func writePhysical(_ address: UInt64, _ bytes: [UInt8]) {
    if let range = range(address, bytes.count) { memory.replaceSubrange(range, with: bytes) }
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
    guard let value = registers[index] else { throw .fault(.generalProtection()) }
    return value
  }

  func setModelSpecificRegister(_ index: UInt32, _ value: UInt64) throws(CompletionStop) {
    guard registers[index] != nil else { throw .fault(.generalProtection()) }
    registers[index] = value
  }

  func extendedControlRegister() -> UInt64 { controlRegister }

  func setExtendedControlRegister(_ value: UInt64) throws(CompletionStop) {
    guard value & 1 != 0, value & ~7 == 0, value & 6 != 4 else {
      throw .fault(.generalProtection())
    }
    controlRegister = value
  }

  func extendedState() -> [UInt8] { area }
  func setExtendedState(_ area: [UInt8]) { self.area = area }
  func flushTranslations() { flushes += 1 }
  func random() -> UInt64 { randomNumbers.isEmpty ? 0 : randomNumbers.removeFirst() }
}

/// Registers as an operating system has them, and a port with memory behind them.
struct TestProcessor {
  var state = ProcessorState(general: kvm_regs(), special: kvm_sregs())
  let port = TestPort()

  static let code: UInt64 = 0x1000
  static let stack: UInt64 = 0x8000

  /// Flat segments; at privilege level 0 with SSE and XSAVE enabled and no paging, which
  /// no processor has in 64-bit mode, but which leaves linear addresses what they are.
  init(bits: Int = 64, level: UInt8 = 0) {
    state.general.rip = Self.code
    state.general.rsp = Self.stack
    state.general.rflags = 2
    state.special.cr0 = 1 | 1 << 1 | 1 << 5
    state.special.cr4 = 1 << 9 | 1 << 16 | 1 << 18
    var code = kvm_segment()
    code.limit = 0xFFFF_FFFF
    code.type = 11
    code.present = 1
    code.s = 1
    code.g = 1
    code.selector = 8 | UInt16(level)
    code.dpl = level
    if bits == 64 {
      code.l = 1
      state.special.efer = 1 << 10 | 1 << 8
    } else {
      code.db = bits == 32 ? 1 : 0
    }
    var data = code
    data.type = 3
    data.l = 0
    data.db = bits == 16 ? 0 : 1
    data.selector = 16 | UInt16(level)
    state.special.cs = code
    (state.special.ss, state.special.ds, state.special.es) = (data, data, data)
    (state.special.fs, state.special.gs) = (data, data)
    port.area.replaceSubrange(0..<2, with: [0x7F, 0x03])
    port.area.replaceSubrange(24..<32, with: [0x80, 0x1F, 0, 0, 0xFF, 0xFF, 2, 0])
  }

  /// Carries out what `code` begins with; fails unless that succeeds.
  @discardableResult
  mutating func run(_ code: UInt8...) throws -> CompletionContext { try run(code) }

  @discardableResult
  mutating func run(_ code: [UInt8]) throws -> CompletionContext {
    switch complete(code) {
    case .completed(let context):
      state = context.state
      return context
    case let other: throw Unexpected(outcome: "\(other)")
    }
  }

  func complete(_ code: [UInt8]) -> InstructionCompletion.Outcome {
    InstructionCompletion.complete(code, state, port)
  }

  /// The exception that `code` raises; `nil` if it raises none.
  func exception(_ code: UInt8...) -> ProcessorException? { exception(code) }

  func exception(_ code: [UInt8]) -> ProcessorException? {
    if case .exception(let exception) = complete(code) { exception } else { nil }
  }

  struct Unexpected: Error {
    let outcome: String
  }
}
