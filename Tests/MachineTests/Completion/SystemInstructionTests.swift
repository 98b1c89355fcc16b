import Testing

import Machine

@Suite("Completed system instructions, as the manual has them")
struct SystemInstructionTests {
  private static let clac: [UInt8] = [0x0F, 0x01, 0xCA]
  private static let stac: [UInt8] = [0x0F, 0x01, 0xCB]

  @Test("FWAIT does nothing, unless the state is another task's or an error waits")
  func fwait() throws {
    var processor = TestProcessor()
    try processor.run(0x9B)
    #expect(processor.state.general.rip == TestProcessor.code + 1)
    processor.state.special.cr0 |= 1 << 3
    #expect(processor.exception(0x9B) == .deviceNotAvailable)
    processor.state.special.cr0 &= ~(1 << 3)
    processor.port.area[2] = 0x80
    #expect(processor.exception(0x9B) == .floatingPoint)
    processor.state.special.cr0 &= ~(1 << 5)
    #expect(processor.exception(0x9B) == nil)
  }

  @Test("FLDCW, FNSTCW, FNSTSW, FNCLEX and FNINIT")
  func floatingPointControl() throws {
    var processor = TestProcessor()
    processor.state[6] = 0x4000
    processor.port.writePhysical(0x4000, [0x3B, 0x03])
    try processor.run(0xD9, 0x2E)  // fldcw [rsi]
    #expect(Array(processor.port.area[0..<2]) == [0x7B, 0x03])
    #expect(processor.port.area[512] & 1 == 1)
    try processor.run(0xD9, 0x7E, 0x10)  // fnstcw [rsi + 16]
    #expect(processor.port.readPhysical(0x4010, count: 3) == [0x7B, 0x03, 0])
    // An exception that was masked until now is waited for.
    processor.port.area[0] = 0x7F
    processor.port.area[2] = 4
    processor.port.writePhysical(0x4000, [0x7B, 0x03])
    try processor.run(0xD9, 0x2E)
    #expect(Array(processor.port.area[2..<4]) == [0x84, 0x80])
    #expect(processor.exception(0xD9, 0x2E) == .floatingPoint)
    processor.state[0] = .max
    try processor.run(0xDF, 0xE0)  // fnstsw ax
    #expect(processor.state[0] == 0xFFFF_FFFF_FFFF_8084)
    try processor.run(0xDB, 0xE2)  // fnclex
    #expect(Array(processor.port.area[2..<4]) == [0, 0])
    processor.port.area[4] = 0xFF
    try processor.run(0xDB, 0xE3)  // fninit
    #expect(Array(processor.port.area[0..<6]) == [0x7F, 0x03, 0, 0, 0, 0])
    processor.state.special.cr0 |= 1 << 2
    #expect(processor.exception(0xDB, 0xE3) == .deviceNotAvailable)
  }

  @Test("CLAC and STAC change AC at privilege level 0 only")
  func accessFlag() throws {
    var processor = TestProcessor()
    try processor.run(Self.stac)
    #expect(processor.state.flags.contains(.alignmentCheck))
    try processor.run(Self.clac)
    #expect(!processor.state.flags.contains(.alignmentCheck))
    for code in [Self.clac, Self.stac] {
      #expect(
        TestProcessor(level: 3).exception(code) == .invalidOpcode, "a program may not do this")
    }
  }

  @Test("XGETBV gives XCR0, or what of it is in use; XSETBV takes what the processor has")
  func extendedControl() throws {
    var processor = TestProcessor()
    processor.port.area[512] = 3
    (processor.state[0], processor.state[2]) = (.max, .max)
    processor.state[1] = 0
    try processor.run(0x0F, 0x01, 0xD0)
    #expect(processor.state[0] == 7 && processor.state[2] == 0)
    processor.state[1] = 1
    try processor.run(0x0F, 0x01, 0xD0)
    #expect(processor.state[0] == 3)
    processor.state[1] = 2
    #expect(processor.exception(0x0F, 0x01, 0xD0) == .generalProtection())

    (processor.state[0], processor.state[1], processor.state[2]) = (3, 0, 0)
    try processor.run(0x0F, 0x01, 0xD1)
    #expect(processor.port.controlRegister == 3)
    processor.state[0] = 5
    #expect(processor.exception(0x0F, 0x01, 0xD1) == .generalProtection())
    processor.state.special.cr4 &= ~(1 << 18)
    #expect(processor.exception(0x0F, 0x01, 0xD1) == .invalidOpcode)
    #expect(processor.exception(0x0F, 0x01, 0xD0) == .invalidOpcode)
  }

  @Test("RDTSCP and RDPID")
  func counters() throws {
    var processor = TestProcessor()
    processor.port.registers = [0x10: 0x1234_5678_9ABC_DEF0, 0xC000_0103: 0x4321]
    try processor.run(0x0F, 0x01, 0xF9)
    #expect(processor.state[0] == 0x9ABC_DEF0 && processor.state[2] == 0x1234_5678)
    #expect(processor.state[1] == 0x4321)
    try processor.run(0xF3, 0x0F, 0xC7, 0xFB)  // rdpid rbx
    #expect(processor.state[3] == 0x4321)

    var program = TestProcessor(level: 3)
    program.port.registers = processor.port.registers
    #expect(program.exception(0x0F, 0x01, 0xF9) == nil)
    program.state.special.cr4 |= 1 << 2
    #expect(program.exception(0x0F, 0x01, 0xF9) == .generalProtection())
  }

  @Test("RDFSBASE and its family, in 64-bit mode where the system allows them")
  func bases() throws {
    var processor = TestProcessor(level: 3)
    processor.state.special.fs.base = 0x1_2345_6789
    try processor.run(0xF3, 0x48, 0x0F, 0xAE, 0xC0)  // rdfsbase rax
    #expect(processor.state[0] == 0x1_2345_6789)
    try processor.run(0xF3, 0x0F, 0xAE, 0xC1)  // rdfsbase ecx
    #expect(processor.state[1] == 0x2345_6789)
    processor.state[3] = 0x7FFF_FFFF_F000
    try processor.run(0xF3, 0x48, 0x0F, 0xAE, 0xDB)  // wrgsbase rbx
    #expect(processor.state.special.gs.base == 0x7FFF_FFFF_F000)
    try processor.run(0xF3, 0x48, 0x0F, 0xAE, 0xCA)  // rdgsbase rdx
    #expect(processor.state[2] == 0x7FFF_FFFF_F000)
    processor.state[3] = 0x8000_0000_0000
    #expect(processor.exception(0xF3, 0x48, 0x0F, 0xAE, 0xDB) == .generalProtection())
    processor.state.special.cr4 &= ~(1 << 16)
    #expect(processor.exception(0xF3, 0x48, 0x0F, 0xAE, 0xC0) == .invalidOpcode)
    var old = TestProcessor(bits: 32)
    #expect(old.exception(0xF3, 0x0F, 0xAE, 0xC0) == .invalidOpcode)
    old.state.special.cr4 = 0
  }

  @Test("SWAPGS exchanges the base with the register that keeps the system's")
  func swap() throws {
    var processor = TestProcessor()
    processor.port.registers = [0xC000_0102: 0xFFFF_8000_0000_0000]
    processor.state.special.gs.base = 0x1000
    try processor.run(0x0F, 0x01, 0xF8)
    #expect(processor.state.special.gs.base == 0xFFFF_8000_0000_0000)
    #expect(processor.port.registers[0xC000_0102] == 0x1000)
    #expect(TestProcessor(level: 3).exception(0x0F, 0x01, 0xF8) == .generalProtection())
  }

  @Test("RDRAND and RDSEED give what the host gives, and say that it is valid")
  func random() throws {
    var processor = TestProcessor()
    processor.port.randomNumbers = [0xFEED_FACE_CAFE_BEEF, 0x1111_2222_3333_4444, 0xABCD]
    processor.state.flags.insert(.overflow)
    try processor.run(0x48, 0x0F, 0xC7, 0xF0)  // rdrand rax
    #expect(processor.state[0] == 0xFEED_FACE_CAFE_BEEF)
    #expect(processor.state.flags.intersection(.arithmetic) == .carry)
    try processor.run(0x0F, 0xC7, 0xF9)  // rdseed ecx
    #expect(processor.state[1] == 0x3333_4444)
    processor.state[2] = .max
    try processor.run(0x66, 0x0F, 0xC7, 0xF2)  // rdrand dx
    #expect(processor.state[2] == 0xFFFF_FFFF_FFFF_ABCD)
  }

  @Test("INVPCID forgets translations and refuses descriptors that are none")
  func invalidate() throws {
    let code: [UInt8] = [0x66, 0x0F, 0x38, 0x82, 0x06]  // invpcid rax, [rsi]
    var processor = TestProcessor()
    processor.state[6] = 0x4000
    for type: UInt64 in 0...3 {
      processor.state[0] = type
      try processor.run(code)
    }
    #expect(processor.port.flushes == 4)
    processor.state[0] = 4
    #expect(processor.exception(code) == .generalProtection(), "there is no type 4")
    // An identifier where CR4.PCIDE is clear.
    processor.state[0] = 1
    processor.port.writePhysical(0x4000, [5])
    #expect(processor.exception(code) == .generalProtection(), "there are no identifiers")
    processor.state.special.cr4 |= 1 << 17
    try processor.run(code)
  }

  @Test("what is undefined is #UD; what is not covered is told by name")
  func others() throws {
    #expect(TestProcessor().exception(0x0F, 0x0B) == .invalidOpcode)  // ud2
    #expect(TestProcessor().exception(0x0F, 0xFF, 0xC0) == .invalidOpcode)  // ud0
    #expect(TestProcessor().exception(0x0F, 0xB9, 0xC0) == .invalidOpcode)  // ud1
    // push es is no instruction of 64-bit mode.
    let nothing = [0x06] + [UInt8](repeating: 0x90, count: 14)
    #expect(
      TestProcessor().exception(nothing) == .invalidOpcode, "06 is no instruction of 64-bit mode")
    guard case .notCovered(let name) = TestProcessor().complete([0x66, 0x0F, 0x38, 0xDC, 0xC1])
    else {
      Issue.record("aesenc is not covered")
      return
    }
    #expect(name == "aesenc")
    // Half an instruction.
    guard case .notCovered(nil) = TestProcessor().complete([0x48, 0x0F]) else {
      Issue.record("there is no instruction yet")
      return
    }
  }

  @Test("an instruction under single step traps after it; RF ends with it")
  func singleStep() throws {
    var processor = TestProcessor()
    processor.state.flags.formUnion([.trap, .resume])
    let context = try processor.run(0x9B)
    #expect(context.trap == .debug)
    #expect(!processor.state.flags.contains(.resume))
  }
}
