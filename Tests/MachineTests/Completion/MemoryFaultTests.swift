import Testing

import Machine

/// Four levels of tables: linear 0x40_0000 is a page of the program's, 0x40_1000 one that
/// it may only read, 0x40_2000 the system's, 0x40_3000 absent.
@Suite("Completed instructions and paged memory")
struct MemoryFaultTests {
  private static let cx8: [UInt8] = [0x0F, 0xC7, 0x0E]  // cmpxchg8b [rsi]
  private static let popcnt: [UInt8] = [0xF3, 0x48, 0x0F, 0xB8, 0x06]  // popcnt rax, [rsi]
  private static let table: UInt64 = 0x1_0000

  private func processor(level: UInt8) -> TestProcessor {
    var processor = TestProcessor(level: level)
    let port = processor.port
    for step: UInt64 in 0..<3 {
      port.writePhysical(
        Self.table + step * 0x1000 + (step == 2 ? 2 * 8 : 0),
        (Self.table + (step + 1) * 0x1000 | 7).bytes(8))
    }
    for (index, entry): (UInt64, UInt64) in [(0, 0x2_0007), (1, 0x2_1005), (2, 0x2_2003), (3, 0)] {
      port.writePhysical(Self.table + 0x3000 + index * 8, entry.bytes(8))
    }
    processor.state.special.cr0 |= 1 << 31 | 1 << 16
    processor.state.special.cr3 = Self.table
    processor.state.special.cr4 |= 1 << 5
    return processor
  }

  private func fault(
    _ code: [UInt8], at address: UInt64, level: UInt8,
    _ change: (inout ProcessorState) -> Void = { _ in }
  ) -> ProcessorException? {
    var processor = processor(level: level)
    processor.state[6] = address
    change(&processor.state)
    if case .exception(let exception) = processor.complete(code) { return exception }
    return nil
  }

  @Test("page faults have the processor's error code and address")
  func pageFaults() {
    #expect(fault(Self.popcnt, at: 0x40_0000, level: 3) == nil)
    #expect(fault(Self.popcnt, at: 0x40_2000, level: 3) == .pageFault(0x40_2000, code: 5))
    #expect(fault(Self.popcnt, at: 0x40_3000, level: 3) == .pageFault(0x40_3000, code: 4))
    #expect(fault(Self.popcnt, at: 0x40_3000, level: 0) == .pageFault(0x40_3000, code: 0))
    #expect(fault(Self.cx8, at: 0x40_1000, level: 3) == .pageFault(0x40_1000, code: 7))
    #expect(fault(Self.cx8, at: 0x40_1000, level: 0) == .pageFault(0x40_1000, code: 3))
    #expect(fault(Self.popcnt, at: 0x40_2000, level: 0) == nil)
    // Where CR0.WP is clear the system may write anything.
    #expect(fault(Self.cx8, at: 0x40_1000, level: 0) { $0.special.cr0 &= ~(1 << 16) } == nil)
    // An access across two pages faults at the second one's start.
    #expect(fault(Self.popcnt, at: 0x40_2FFC, level: 0) == .pageFault(0x40_3000, code: 0))
  }

  @Test("SMAP keeps the system off the program's pages, unless AC is set")
  func accessPrevention() {
    let smap: (inout ProcessorState) -> Void = { $0.special.cr4 |= 1 << 21 }
    #expect(fault(Self.popcnt, at: 0x40_0000, level: 0, smap) == .pageFault(0x40_0000, code: 1))
    #expect(
      fault(Self.popcnt, at: 0x40_0000, level: 0) {
        smap(&$0)
        $0.flags.insert(.alignmentCheck)
      } == nil)
    #expect(fault(Self.popcnt, at: 0x40_0000, level: 3, smap) == nil)
  }

  @Test("accessed and dirty bits are set as by the processor")
  func accessedAndDirty() throws {
    var processor = processor(level: 3)
    func entry(_ page: UInt64) -> UInt64 {
      UInt64(littleEndian: processor.port.readPhysical(Self.table + 0x3000 + page * 8, count: 8))
    }
    processor.state[6] = 0x40_1000
    try processor.run(Self.popcnt)
    #expect(entry(1) == 0x2_1025)
    processor.state[6] = 0x40_0000
    try processor.run(Self.cx8)
    #expect(entry(0) == 0x2_0067)
    let top = processor.port.readPhysical(Self.table, count: 1)
    #expect(top == [0x27])
  }

  @Test("an x87 value on a page that is absent is neither loaded nor popped")
  func floatingPoint() {
    let (load, store): ([UInt8], [UInt8]) = ([0xDB, 0x2E], [0xDB, 0x3E])  // [rsi]
    for (code, fault): ([UInt8], UInt32) in [(load, 0), (store, 2)] {
      var processor = processor(level: 0)
      processor.port.area.replaceSubrange(2..<5, with: [0, 0x38, 0x80])
      let before = processor.port.area
      processor.state[6] = 0x40_2FF8
      #expect(processor.exception(code) == .pageFault(0x40_3000, code: fault))
      #expect(processor.port.area == before)
      #expect(processor.port.readPhysical(0x2_2FF8, count: 8) == Array(repeating: 0, count: 8))
    }
  }

  @Test("addresses that are not canonical, and limits of segments")
  func segments() {
    #expect(fault(Self.popcnt, at: 0x8000_0000_0000, level: 0) == .generalProtection())
    // [rsp] is in the stack segment.
    let throughStack: [UInt8] = [0xF3, 0x48, 0x0F, 0xB8, 0x04, 0x24]
    var processor = TestProcessor()
    processor.state.general.rsp = 1 << 47
    #expect(
      processor.exception(throughStack) == .stackFault(0), "the stack is outside the address space")
    var old = TestProcessor(bits: 32)
    old.state.special.ds.limit = 0xFFF
    old.state[6] = 0xFFC
    #expect(old.exception(0xF3, 0x0F, 0xB8, 0x06) == nil)
    old.state[6] = 0xFFD
    #expect(old.exception(0xF3, 0x0F, 0xB8, 0x06) == .generalProtection())
    old.state.special.ds.unusable = 1
    old.state[6] = 0
    #expect(old.exception(0xF3, 0x0F, 0xB8, 0x06) == .generalProtection())
  }

  @Test("CMPXCHG16B and aligned moves want aligned memory")
  func alignment() {
    var processor = TestProcessor()
    processor.state[6] = 0x4008
    #expect(processor.exception(0x48, 0x0F, 0xC7, 0x0E) == .generalProtection())
    #expect(processor.exception(0x0F, 0x28, 0x06) == .generalProtection())
    #expect(processor.exception(0x0F, 0x10, 0x06) == nil)
    processor.state.special.cr0 |= 1 << 3
    #expect(processor.exception(0x0F, 0x10, 0x06) == .deviceNotAvailable)
    processor.state.special.cr4 &= ~(1 << 9)
    #expect(processor.exception(0x0F, 0x10, 0x06) == .invalidOpcode)
  }
}

@Suite("Completing what a hostile guest executes")
struct CompletionFuzzingTests {
  @Test("never traps, and a fault leaves the processor as it was")
  func arbitrary() {
    var random = SystemRandomNumberGenerator()
    for turn in 0..<20_000 {
      var program = (0..<200).map { _ in UInt8.random(in: .min ... .max, using: &random) }
      // Mostly instructions that are known, with arbitrary operands.
      if turn % 4 != 0, let row = NativeRows.all.randomElement(using: &random) {
        program.replaceSubrange(165..<165 + row.code.count, with: row.code)
      }
      if turn % 4 == 1 { program[165] = 0xD8 | program[165] & 7 }
      #expect(CompletionFuzzing.run(program), "\(program)")
    }
  }
}
