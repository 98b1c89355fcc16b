import Testing

import Machine

@Suite("Completed x87 instructions")
struct X87Tests {
  // MARK: Against the processor's own

  /// FNCLEX, FNINIT and FNSTSW, like FLDCW, FNSTCW and FNSTSW to memory, are tested elsewhere.
  private static let control: [[UInt8]] = [[0xDB, 0xE2], [0xDB, 0xE3], [0xDF, 0xE0]]

  private static func forms(_ opcode: UInt8) -> [[UInt8]] {
    let registers = (0xC0...0xFF).map { [opcode, UInt8($0)] }
    // [rsi]
    let memory = (0..<8).map { [opcode, UInt8($0 << 3 | 6)] }
    return (registers + memory).filter { code in
      if control.contains(code) || code[0] == 0xD9 && [0x2E, 0x3E].contains(code[1])
        || code == [0xDD, 0x3E]
      {
        return false
      }
      var processor = X87Bench().processor()
      return (try? processor.run(code)) != nil
    }
  }

  @Test(
    "do what the processor does, with any values, masks and flags",
    arguments: zip(0xD8...0xDF, [72, 49, 41, 57, 56, 46, 57, 32]))
  func same(_ opcode: Int, _ count: Int) throws {
    let forms = Self.forms(UInt8(opcode))
    #expect(forms.count == count, "all instructions that the manual names")
    var random = SystemRandomNumberGenerator()
    for code in forms {
      for _ in 0..<40 {
        let before = X87Bench(&random)
        var (expected, result) = (try before.native(code), try before.completed(code))
        // Where the last instruction was differs, in the state and in what is stored of it.
        expected.image.replaceSubrange(6..<24, with: result.image[6..<24])
        if [[0xD9, 0x36], [0xDD, 0x36]].contains(code) {
          expected.memory.replaceSubrange(12..<28, with: result.memory[12..<28])
        }
        if [[0xD9, 0x26], [0xDD, 0x26]].contains(code) { result.flags = expected.flags }
        #expect(result.image == expected.image, "\(code) of \(before)")
        #expect(result.memory == expected.memory, "\(code) of \(before)")
        #expect(result.flags & 0x8D5 == expected.flags & 0x8D5, "\(code) of \(before)")
      }
    }
  }

  // MARK: As the manual has it

  @Test("values come from memory and go there")
  func values() throws {
    var bench = X87Bench()
    bench.memory.replaceSubrange(0..<4, with: UInt64(7).bytes(4))
    bench = try bench.completed([0xDB, 0x06])  // fild dword [rsi]
    #expect(bench.value(0) == 7)
    bench.memory.replaceSubrange(0..<8, with: (-0.5).bitPattern.bytes(8))
    bench = try bench.completed([0xDC, 0x36])  // fdiv qword [rsi]
    #expect(bench.value(0) == -14)
    bench = try bench.completed([0xD9, 0xE8])  // fld1
    #expect((bench.value(0), bench.value(1)) == (1, -14))
    bench = try bench.completed([0xDE, 0xC1])  // faddp
    #expect(bench.value(0) == -13)
    bench = try bench.completed([0xDF, 0x76, 0x20])  // fbstp [rsi + 32]
    #expect(bench.memory[32..<42].elementsEqual([0x13, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]))
    #expect(bench.top == 0)
    #expect(bench.tags == 0)
  }

  @Test("the stack over- and underflows to the default value, if that is masked")
  func stack() throws {
    var bench = try X87Bench().completed([0xDD, 0xD8])  // fstp st(0)
    #expect(bench.status & 0x241 == 0x41)
    bench = X87Bench(1, 2, 3, 4, 5, 6, 7, 8)
    bench = try bench.completed([0xD9, 0xEE])  // fldz
    #expect(bench.value(0).isNaN)
    #expect(bench.status & 0x241 == 0x241)
  }

  @Test("FCOMI, FUCOMI and FCMOV set and use the processor's flags")
  func flags() throws {
    var bench = X87Bench(2, 1)
    bench.flags = 0x8D7
    bench = try bench.completed([0xDB, 0xF1])  // fcomi st, st(1)
    #expect(bench.flags == 3)
    bench = try bench.completed([0xDA, 0xC1])  // fcmovb st, st(1)
    #expect(bench.value(0) == 2)
    bench = try bench.completed([0xDB, 0xE9])  // fucomi st, st(1)
    #expect(bench.flags == 0x42)
  }

  @Test("what a task may not have, and what another exception is owed, comes first")
  func preconditions() {
    for code: [UInt8] in [[0xD9, 0xE8], [0xD9, 0x36], [0xDD, 0x26], [0xDB, 0x2E]] {
      for bit: UInt64 in [2, 3] {
        var processor = X87Bench().processor()
        processor.state.special.cr0 |= 1 << bit
        #expect(processor.exception(code) == .deviceNotAvailable)
      }
    }
    var waiting = X87Bench(control: 0x37B)
    waiting.status = 0x8084
    for code: [UInt8] in [
      [0xD9, 0xE8], [0xD9, 0xD0], [0xDD, 0x26], [0xD9, 0x26], [0xDB, 0x3E],
    ] {
      var processor = waiting.processor()
      #expect(processor.exception(code) == .floatingPoint)
      // Even where its operand would fault.
      processor.state[6] = 1 << 62
      #expect(processor.exception(code) == .floatingPoint)
    }
    for code: [UInt8] in [[0xD9, 0x36], [0xDD, 0x36], [0xDB, 0xE0]] {
      #expect(waiting.processor().exception(code) == nil, "does not wait: \(code)")
    }
  }

  @Test("exceptions that are not masked leave operands alone, and are raised by the next one")
  func unmasked() throws {
    var divided = X87Bench(3, 0, control: 0x37B)
    divided.memory.replaceSubrange(0..<10, with: Array(repeating: 0xEE, count: 10))
    var processor = divided.processor()
    processor.state.general.rip = 0x1234
    try processor.run(0xD8, 0xF9)  // fdivr st, st(1)
    let bench = X87Bench(after: processor)
    #expect((bench.value(0), bench.value(1)) == (0, 3))
    #expect(bench.status & 0x80FF == 0x8084)
    #expect(bench.instructionPointer == 0x1234)
    #expect(bench.opcode == 0xF9)
    #expect(processor.exception(0xDD, 0x1E) == .floatingPoint)
    #expect(processor.exception(0x9B) == .floatingPoint)

    // FIST of what no integer is; FSTP of what no double is: nothing is stored or popped.
    for (value, control, code): (Float80, UInt64, [UInt8]) in [
      (1e30, 0x37E, [0xDB, 0x5E, 0x08]), (1e4000, 0x377, [0xDD, 0x5E, 0x08]),
      (1e-4000, 0x36F, [0xDD, 0x5E, 0x08]), (.nan, 0x37E, [0xDF, 0x76, 0x08]),
    ] {
      let before = X87Bench(value, control: control)
      let after = try before.completed(code)
      #expect(after.memory == before.memory)
      #expect(after[0] == before[0])
      #expect(after.tags == 0x80)
      #expect(after.status & 0x8080 == 0x8080)
      #expect(after.dataPointer == X87Bench.place + 8)
      #expect(after.opcode == UInt64(code[0] & 7) << 8 | UInt64(code[1]))
    }
    // A result that is not exact is stored all the same.
    let inexact = try X87Bench(1.1, control: 0x35F).completed([0xDB, 0x1E])  // fistp dword
    #expect(inexact.memory.prefix(4).elementsEqual([1, 0, 0, 0]))
    #expect(inexact.tags == 0)
    #expect(inexact.status & 0x80FF == 0x80A0)
  }

  @Test("a store that faults neither stores nor pops")
  func faults() throws {
    let bench = X87Bench(1, 2)
    for code: [UInt8] in [
      [0xDD, 0x1E], [0xDB, 0x3E], [0xDD, 0x36], [0xDF, 0x3E], [0xD9, 0x36],
    ] {
      var processor = bench.processor(bits: 32)
      processor.state.special.ds.limit = UInt32(X87Bench.place) + 5
      #expect(processor.exception(code) == .generalProtection())
      #expect(X87Bench(after: processor).image == bench.image)
      processor.state.special.ds.type = 1
      processor.state.special.ds.limit = .max
      #expect(processor.exception(code) == .generalProtection(), "read-only")
    }
    var processor = bench.processor()
    processor.state.general.rsp = 1 << 50
    #expect(processor.exception(0xDD, 0x04, 0x24) == .stackFault())
    #expect(X87Bench(after: processor).image == bench.image)
  }

  // MARK: The environment

  private static func environment(
    bits: Int, prefix: [UInt8] = [], protected: Bool = true
  ) throws -> [UInt64] {
    var processor = X87Bench(1, 0, .nan).processor(bits: bits)
    processor.port.area.replaceSubrange(6..<8, with: UInt64(0x5A6).bytes(2))
    processor.port.area.replaceSubrange(8..<12, with: UInt64(0x12_3456).bytes(4))
    processor.port.area.replaceSubrange(16..<20, with: UInt64(0x65_4321).bytes(4))
    if !protected { processor.state.special.cr0 &= ~1 }
    let before = processor.port.area
    let isSmall = bits == 16 || !protected
    try processor.run(prefix + (isSmall ? [0xD9, 0x34] : [0xD9, 0x36]))  // fnstenv [si], [rsi]
    let width = isSmall == prefix.isEmpty ? 2 : 4
    let memory = processor.port.readPhysical(X87Bench.place, count: 28)
    #expect(memory[(7 * width)...].allSatisfy { $0 == 0 })
    // There and back again, with another state in between.
    var other = X87Bench(7).processor(bits: bits)
    if !protected { other.state.special.cr0 &= ~1 }
    other.port.writePhysical(X87Bench.place, memory)
    try other.run(prefix + (isSmall ? [0xD9, 0x24] : [0xD9, 0x26]))
    #expect(other.port.area[0..<5] == before[0..<5])
    return (0..<7).map { UInt64(littleEndian: memory[($0 * width)..<($0 + 1) * width]) }
  }

  @Test("FNSTENV and FLDENV in the formats of each mode")
  func formats() throws {
    // The tags: five empty, 1 valid, 0 zero, NaN special.
    let high: UInt64 = 0xFFFF_0000
    let tags: UInt64 = 0b00_01_10_11_11_11_11_11
    let head: [UInt64] = [0x37F, 0x2800, tags]
    let wide = head.map { $0 | high } + [0x12_3456, 0x5A6_0000, 0x65_4321, high]
    let narrow = head + [0x3456, 0, 0x4321, 0]
    let realNarrow = head + [0x3456, 0x25A6, 0x4321, 0x5000]
    let realWide = head.map { $0 | high } + [0x3456 | high, 0x1_25A6, 0x4321 | high, 0x6_5000]
    #expect(try Self.environment(bits: 64) == wide)
    #expect(try Self.environment(bits: 32) == wide)
    #expect(try Self.environment(bits: 32, prefix: [0x66]) == narrow)
    #expect(try Self.environment(bits: 16) == narrow)
    #expect(try Self.environment(bits: 16, prefix: [0x66]) == wide)
    #expect(try Self.environment(bits: 16, protected: false) == realNarrow)
    #expect(try Self.environment(bits: 16, prefix: [0x66], protected: false) == realWide)
  }

  @Test("FNSAVE clears the state that FRSTOR brings back")
  func saveAndRestore() throws {
    let before = X87Bench(1, 2, 3, control: 0x27B)
    let saved = try before.completed([0xDD, 0x36])
    #expect((saved.control, saved.status, saved.tags) == (0x37F, 0, 0))
    #expect(saved.memory[28..<38].elementsEqual(X87Bench.bytes(3)))
    let restored = try saved.completed([0xDD, 0x26])
    #expect(restored.image == before.image)
  }
}
