import Testing

import Machine

@Suite("Completed saving and restoring of extended state, as the manual has it")
struct ExtendedStateTests {
  private static let xsave: [UInt8] = [0x48, 0x0F, 0xAE, 0x26]
  private static let xsaveopt: [UInt8] = [0x48, 0x0F, 0xAE, 0x36]
  private static let xsavec: [UInt8] = [0x48, 0x0F, 0xC7, 0x26]
  private static let xsaves: [UInt8] = [0x48, 0x0F, 0xC7, 0x2E]
  private static let xrstor: [UInt8] = [0x48, 0x0F, 0xAE, 0x2E]
  private static let xrstors: [UInt8] = [0x48, 0x0F, 0xC7, 0x1E]
  private static let area: UInt64 = 0x4000

  /// AVX's upper halves at 576, and a component of 100 bytes after a gap that is aligned
  /// in the compacted format.
  private func processor(inUse: UInt8 = 0x27) -> TestProcessor {
    var processor = TestProcessor()
    let port = processor.port
    port.controlRegister = 0x27
    port.registers = [0xDA0: 0]
    port.components = [
      ExtendedComponent(number: 2, size: 250, offset: 576, isAligned: false),
      ExtendedComponent(number: 5, size: 100, offset: 1088, isAligned: true),
    ]
    for index in 0..<1188 where !(24..<32).contains(index) && !(512..<576).contains(index) {
      port.area[index] = UInt8(truncatingIfNeeded: index &* 7 &+ 1)
    }
    port.area[512] = inUse
    processor.state[6] = Self.area
    (processor.state[0], processor.state[2]) = (.max, .max)
    return processor
  }

  private func saved(_ processor: TestProcessor, _ range: Range<Int>) -> [UInt8] {
    processor.port.readPhysical(Self.area + UInt64(range.lowerBound), count: range.count)
  }

  @Test("XSAVE writes each component where CPUID has it, and leaves the rest of the area alone")
  func standard() throws {
    var processor = processor()
    processor.port.writePhysical(Self.area, Array(repeating: 0xEE, count: 1300))
    try processor.run(Self.xsave)
    let state = processor.port.area
    #expect(saved(processor, 0..<416) == Array(state[0..<416]))
    #expect(saved(processor, 416..<512) == Array(repeating: 0xEE, count: 96))
    #expect(saved(processor, 576..<826) == Array(state[576..<826]))
    #expect(saved(processor, 826..<1088) == Array(repeating: 0xEE, count: 262))
    #expect(saved(processor, 1088..<1188) == Array(state[1088..<1188]))
    // XSTATE_BV keeps what was not asked for.
    #expect(saved(processor, 512..<520) == [0xEF] + Array(repeating: 0xEE, count: 7))
  }

  @Test("XSAVE saves only what was asked for")
  func mask() throws {
    var processor = processor()
    processor.state[0] = 4
    processor.state[2] = 0
    try processor.run(Self.xsave)
    #expect(saved(processor, 0..<24) == Array(repeating: 0, count: 24))
    #expect(saved(processor, 24..<28) == [0x80, 0x1F, 0, 0])
    #expect(saved(processor, 576..<826) == Array(processor.port.area[576..<826]))
    #expect(saved(processor, 512..<520) == [4, 0, 0, 0, 0, 0, 0, 0])
  }

  @Test("XSAVEOPT and XSAVEC leave out components in their initial state")
  func initial() throws {
    for code in [Self.xsaveopt, Self.xsavec] {
      var processor = processor(inUse: 0x22)
      try processor.run(code)
      #expect(saved(processor, 0..<24) == Array(repeating: 0, count: 24))
      #expect(saved(processor, 160..<416) == Array(processor.port.area[160..<416]))
      #expect(saved(processor, 512..<513) == [0x22])
      #expect(saved(processor, 576..<826) == Array(repeating: 0, count: 250))
    }
  }

  @Test("the compacted format packs what was asked for, aligned where CPUID says so")
  func compacted() throws {
    for code in [Self.xsavec, Self.xsaves] {
      var processor = processor()
      try processor.run(code)
      // 576 + 250 = 826, aligned to 832.
      #expect(saved(processor, 576..<826) == Array(processor.port.area[576..<826]))
      #expect(saved(processor, 832..<932) == Array(processor.port.area[1088..<1188]))
      #expect(
        saved(processor, 512..<528) == [0x27, 0, 0, 0, 0, 0, 0, 0, 0x27, 0, 0, 0, 0, 0, 0, 0x80])
      processor.state[0] = 0x20
      processor.state[2] = 0
      try processor.run(code)
      #expect(saved(processor, 576..<676) == Array(processor.port.area[1088..<1188]))
    }
  }

  @Test("what one form saves the restoring one brings back", arguments: [0x27, 0x22, 0x05, 0])
  func roundTrip(_ inUse: UInt8) throws {
    for (save, restore) in [
      (Self.xsave, Self.xrstor), (Self.xsaveopt, Self.xrstor), (Self.xsavec, Self.xrstor),
      (Self.xsaves, Self.xrstors),
    ] {
      var processor = processor(inUse: inUse)
      try processor.run(save)
      let before = processor.port.area
      for index in [0, 40, 200, 600, 1100] { processor.port.area[index] ^= 0xFF }
      processor.port.area[512] = 0x27
      try processor.run(restore)
      let after = processor.port.area
      #expect(after[512] == inUse)
      for (component, range) in [(0, 32..<160), (1, 160..<416), (2, 576..<826), (5, 1088..<1188)] {
        let isInUse = inUse >> component & 1 != 0
        #expect(
          Array(after[range])
            == (isInUse ? Array(before[range]) : Array(repeating: 0, count: range.count)))
      }
      #expect(after[0..<2].elementsEqual(inUse & 1 != 0 ? before[0..<2] : [0x7F, 0x03]))
    }
  }

  @Test("headers that no processor writes are refused")
  func badHeaders() throws {
    func fault(_ code: [UInt8], _ change: (inout [UInt8]) -> Void) throws -> ProcessorException? {
      var processor = processor()
      try processor.run(code == Self.xrstors ? Self.xsaves : Self.xsave)
      processor.port.writePhysical(Self.area + 512, Array(repeating: 0, count: 0))
      var header = saved(processor, 512..<576)
      change(&header)
      processor.port.writePhysical(Self.area + 512, header)
      if case .exception(let exception) = processor.complete(code) { return exception }
      return nil
    }
    #expect(try fault(Self.xrstor) { _ in } == nil)
    #expect(try fault(Self.xrstor) { $0[0] |= 0x40 } == .generalProtection())
    #expect(try fault(Self.xrstor) { $0[8] = 1 } == .generalProtection())
    #expect(try fault(Self.xrstor) { $0[16] = 1 } == .generalProtection())
    #expect(try fault(Self.xrstors) { _ in } == nil)
    #expect(try fault(Self.xrstors) { $0[15] = 0 } == .generalProtection())
    #expect(try fault(Self.xrstors) { $0[8] = 3 } == .generalProtection())
    #expect(try fault(Self.xrstors) { $0[63] = 1 } == .generalProtection())
  }

  @Test("preconditions: alignment, CR4.OSXSAVE, CR0.TS, privilege, MXCSR")
  func preconditions() throws {
    var processor = processor()
    processor.state[6] = Self.area + 8
    #expect(
      processor.exception(Self.xsave) == .generalProtection(), "the area must be aligned to 64")
    processor.state[6] = Self.area
    try processor.run(Self.xsave)
    processor.port.writePhysical(Self.area + 26, [0xFF])
    #expect(processor.exception(Self.xrstor) == .generalProtection(), "MXCSR has reserved bits")
    processor.state.special.cr0 |= 1 << 3
    #expect(processor.exception(Self.xsave) == .deviceNotAvailable, "the state is another task's")
    processor.state.special.cr4 &= ~(1 << 18)
    #expect(processor.exception(Self.xsave) == .invalidOpcode, "the system has not enabled it")
    var program = TestProcessor(level: 3)
    program.state[6] = Self.area
    #expect(program.exception(Self.xsaves) == .generalProtection(), "XSAVES is the system's")
  }

  @Test("FXSAVE and FXRSTOR, LDMXCSR and STMXCSR")
  func fast() throws {
    var processor = processor()
    try processor.run(0x48, 0x0F, 0xAE, 0x06)  // fxsave64 [rsi]
    #expect(saved(processor, 0..<416) == Array(processor.port.area[0..<416]))
    let before = processor.port.area
    for index in [0, 40, 200] { processor.port.area[index] ^= 0xFF }
    try processor.run(0x48, 0x0F, 0xAE, 0x0E)  // fxrstor64 [rsi]
    #expect(processor.port.area == before)

    processor.port.writePhysical(Self.area, [0xA0, 0x1F, 0, 0])
    try processor.run(0x0F, 0xAE, 0x16)  // ldmxcsr [rsi]
    #expect(Array(processor.port.area[24..<28]) == [0xA0, 0x1F, 0, 0])
    processor.state[6] = Self.area + 64
    try processor.run(0x0F, 0xAE, 0x1E)  // stmxcsr [rsi]
    #expect(saved(processor, 64..<68) == [0xA0, 0x1F, 0, 0])
    processor.port.writePhysical(Self.area + 64, [0, 0, 4, 0])
    #expect(processor.exception(0x0F, 0xAE, 0x16) == .generalProtection())
  }
}
