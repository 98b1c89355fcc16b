import CKVM
import Testing

import Machine

/// Flat code and data segments for privilege levels 0 and 3, in a table at 0x6000.
private struct Tables {
  static let kernelCode64: UInt64 = 0x00AF_9B00_0000_FFFF
  static let kernelCode32: UInt64 = 0x00CF_9B00_0000_FFFF
  static let kernelData: UInt64 = 0x00CF_9300_0000_FFFF
  static let userData: UInt64 = 0x00CF_F300_0000_FFFF
  static let userCode64: UInt64 = 0x00AF_FB00_0000_FFFF
  static let userCode32: UInt64 = 0x00CF_FB00_0000_FFFF
  /// Not accessed yet.
  static let freshData: UInt64 = 0x00CF_F200_0000_FFFF
  static let absentCode: UInt64 = 0x00CF_7B00_0000_FFFF
  static let executeOnly: UInt64 = 0x00CF_9900_0000_FFFF
  static let taskState: UInt64 = 0x0000_8B00_6000_0067

  static let base: UInt64 = 0x6000
  static let all: [UInt64] = [
    0, kernelCode64, kernelData, userCode32 | 0, userData, userCode64, kernelCode32, freshData,
    absentCode, executeOnly, taskState,
  ]

  static func install(in processor: inout TestProcessor) {
    for (index, entry) in all.enumerated() {
      processor.port.writePhysical(base + UInt64(index) * 8, entry.bytes(8))
    }
    processor.state.special.gdt.base = base
    processor.state.special.gdt.limit = UInt16(all.count * 8 - 1)
  }
}

@Suite("Completed transfers of control, as the manual has them")
struct TransferTests {
  private static let iret: [UInt8] = [0xCF]
  private static let iretq: [UInt8] = [0x48, 0xCF]

  private func processor(bits: Int = 64, level: UInt8 = 0) -> TestProcessor {
    var processor = TestProcessor(bits: bits, level: level)
    Tables.install(in: &processor)
    return processor
  }

  private func push(_ words: [UInt64], width: Int, in processor: inout TestProcessor) {
    let bytes = words.flatMap { $0.bytes(width) }
    processor.port.writePhysical(processor.state.general.rsp, bytes)
  }

  @Test("IRETQ to a program loads its segments, stack and flags, and drops the system's")
  func toProgram() throws {
    var processor = processor()
    processor.state.special.ds.dpl = 0
    push([0x40_0000, 0x2B, 0x3_0246, 0x7FFF_0000, 0x23], width: 8, in: &processor)
    let context = try processor.run(Self.iretq)
    let state = processor.state
    #expect(state.general.rip == 0x40_0000 && state.general.rsp == 0x7FFF_0000)
    #expect(state.special.cs.selector == 0x2B && state.special.cs.l == 1)
    #expect(state.special.cs.dpl == 3 && state.privilegeLevel == 3)
    #expect(state.special.ss.selector == 0x23 && state.special.ss.type == 3)
    #expect(state.special.ds.unusable == 1 && state.special.ds.selector == 0)
    #expect(state.general.rflags == 0x1_0246)
    #expect(context.unmasksNMI)
  }

  @Test("IRETQ within the system pops the stack too; a null SS is allowed there")
  func withinSystem() throws {
    var processor = processor()
    push([0xFFFF_FFFF_8100_0000, 8, 0x202, 0x9000, 0], width: 8, in: &processor)
    try processor.run(Self.iretq)
    #expect(processor.state.general.rip == 0xFFFF_FFFF_8100_0000)
    #expect(processor.state.general.rsp == 0x9000)
    #expect(processor.state.special.ss.unusable == 1)
  }

  @Test("IRETD in 32-bit mode: the same level pops three words, an outer one five")
  func protectedMode() throws {
    var same = processor(bits: 32)
    same.state.special.cs.selector = 0x30
    push([0x1234_5678, 0x30, 0x46], width: 4, in: &same)
    try same.run(Self.iret)
    #expect(same.state.general.rip == 0x1234_5678)
    #expect(same.state.general.rsp == TestProcessor.stack + 12)
    #expect(same.state.general.rflags == 0x46)

    var outer = processor(bits: 32)
    push([0x1000, 0x1B, 0x3202, 0x7000, 0x3B], width: 4, in: &outer)
    try outer.run(Self.iret)
    #expect(outer.state.special.cs.selector == 0x1B && outer.state.special.ss.selector == 0x3B)
    #expect(outer.state.general.rsp == 0x7000)
    #expect(outer.state.general.rflags & 0x3000 == 0x3000)
    // The data segment was not accessed before.
    #expect(outer.port.readPhysical(Tables.base + 7 * 8 + 5, count: 1) == [0xF3])
  }

  @Test("IRETD takes a frame that kvm_pvm left without the stack segment's base")
  func strayFrame() throws {
    func returned(at place: UInt64, _ words: [UInt64], stray: [UInt64]) throws -> UInt64 {
      var based = processor(bits: 32)
      based.state.special.ss.base = place
      push(stray, width: 4, in: &based)
      let bytes = words.flatMap { $0.bytes(4) }
      based.port.writePhysical(place + TestProcessor.stack, bytes)
      try based.run(Self.iret)
      #expect(based.state.general.rsp == TestProcessor.stack + 12)
      #expect(based.state.special.cs.selector == 0x30)
      return based.state.general.rip
    }
    let (based, stray): ([UInt64], [UInt64]) = ([0x1111, 0x30, 0x246], [0x2222, 0x30, 0x202])
    #expect(try returned(at: 0x1_0000, based, stray: stray) == 0x1111)
    // No code segment, no flags, flags of virtual-8086 mode.
    for words: [UInt64] in [
      [0x3333, 0x800, 0x246], [0x3333, 0x30, 0x248], [0x3333, 0x30, 0x2_0246],
    ] {
      #expect(try returned(at: 0x1_0000, words, stray: stray) == 0x2222)
    }
    // Neither is one: the fault is that of the frame where it belongs.
    var neither = processor(bits: 32)
    neither.state.special.ss.base = 0x1_0000
    push([0x2222, 0x10, 0x202], width: 4, in: &neither)
    neither.port.writePhysical(
      0x1_0000 + TestProcessor.stack, ([0x3333, 0x100, 0x246] as [UInt64]).flatMap { $0.bytes(4) })
    guard case .exception(let exception) = neither.complete(Self.iret) else {
      Issue.record("no fault")
      return
    }
    #expect(exception == .generalProtection(0x100))
  }

  @Test("IRET in real mode and with 16-bit words in protected mode")
  func sixteenBits() throws {
    var real = TestProcessor(bits: 16)
    real.state.special.cr0 &= ~1
    (real.state.special.ss.base, real.state.special.ss.limit) = (0, 0xFFFF)
    real.state.special.cs.limit = 0xFFFF
    push([0x1234, 0xF000, 0x0246], width: 2, in: &real)
    try real.run(Self.iret)
    #expect(real.state.general.rip == 0x1234)
    #expect(real.state.special.cs.selector == 0xF000 && real.state.special.cs.base == 0xF_0000)
    #expect(real.state.general.rsp == TestProcessor.stack + 6)
    #expect(real.state.general.rflags == 0x246)

    var wide = processor(bits: 32)
    push([0x4321, 0x30, 0x02], width: 2, in: &wide)
    try wide.run(0x66, 0xCF)
    #expect(wide.state.general.rip == 0x4321)
    #expect(wide.state.general.rsp == TestProcessor.stack + 6)
  }

  @Test("a program keeps IOPL and, above it, IF")
  func flagsOfPrograms() throws {
    var processor = processor(level: 3)
    push([0x40_0000, 0x2B, 0x3202 | 1, 0x7000, 0x23], width: 8, in: &processor)
    try processor.run(Self.iretq)
    #expect(processor.state.general.rflags == 3)
  }

  @Test("IRET faults as the manual says, and changes nothing then")
  func faults() {
    func fault(_ words: [UInt64], level: UInt8 = 0) -> ProcessorException? {
      var processor = processor(level: level)
      push(words, width: 8, in: &processor)
      if case .exception(let exception) = processor.complete(Self.iretq) { return exception }
      return nil
    }
    #expect(fault([0, 0, 2, 0, 0x10]) == .generalProtection())
    #expect(fault([0, 0x10, 2, 0, 0x10]) == .generalProtection(0x10))
    #expect(fault([0, 0x100, 2, 0, 0x10]) == .generalProtection(0x100))
    #expect(fault([0, 8, 2, 0, 0x23]) == .generalProtection(0x20))
    #expect(fault([0x8000_0000_0000, 8, 2, 0, 0x10]) == .generalProtection())
    #expect(fault([0, 0x43, 2, 0, 0x23]) == .segmentNotPresent(0x40))
    // A program cannot return to the system, nor a 64-bit one with a null SS.
    #expect(fault([0, 8, 2, 0, 0x10], level: 3) == .generalProtection(8))
    #expect(fault([0, 0x2B, 2, 0, 3]) == .generalProtection())
    var nested = processor()
    nested.state.flags.insert(.nestedTask)
    #expect(nested.exception(0x48, 0xCF) == .generalProtection())
  }

  @Test("INT3 and INT n check their gate, and say which vector comes after them")
  func softwareInterrupts() throws {
    var processor = processor(level: 3)
    processor.state.special.idt.base = 0x5000
    processor.state.special.idt.limit = 16 * 16 - 1
    func gate(_ vector: UInt64, _ access: UInt64) {
      processor.port.writePhysical(
        0x5000 + vector * 16, (UInt64(8) << 16 | access << 40).bytes(8))
    }
    gate(3, 0xEE)
    gate(4, 0x8E)
    gate(5, 0x6E)
    #expect(try processor.run(0xCC).softwareInterrupt == 3)
    #expect(processor.state.general.rip == TestProcessor.code + 1)
    #expect(try processor.run(0xCD, 3).softwareInterrupt == 3)
    #expect(processor.exception(0xCD, 4) == .generalProtection(4 << 3 | 2))
    #expect(processor.exception(0xCD, 5) == .segmentNotPresent(5 << 3 | 2))
    #expect(processor.exception(0xCD, 16) == .generalProtection(16 << 3 | 2))
    #expect(try processor.run(0xF1).trap == .debug)
  }

  @Test("in real mode the vector is gone to at once")
  func realModeInterrupt() throws {
    var real = TestProcessor(bits: 16)
    real.state.special.cr0 &= ~1
    real.state.special.cs.selector = 0x100
    real.state.special.ss.base = 0
    real.state.special.idt.limit = 0x3FF
    real.state.flags.insert([.interrupt])
    real.port.writePhysical(3 * 4, [0x34, 0x12, 0x00, 0xF0])
    let context = try real.run(0xCC)
    #expect(context.softwareInterrupt == nil)
    #expect(real.state.general.rip == 0x1234 && real.state.special.cs.base == 0xF_0000)
    #expect(real.port.readPhysical(TestProcessor.stack - 6, count: 6) == [1, 0x10, 0, 1, 2, 2])
    #expect(!real.state.flags.contains(.interrupt))
  }

  // MARK: Descriptors

  @Test("LAR, LSL, VERR and VERW tell of descriptors that the level may see")
  func descriptors() throws {
    struct Case {
      var selector: UInt64
      var level: UInt8 = 0
      var rights: UInt64?
      var limit: UInt64?
      var isReadable = false
      var isWritable = false
    }
    let cases = [
      Case(
        selector: 0x10, rights: 0xC0_9300, limit: 0xFFFF_FFFF, isReadable: true, isWritable: true),
      Case(selector: 8, rights: 0xA0_9B00, limit: 0xFFFF_FFFF, isReadable: true),
      Case(selector: 0x48, rights: 0xC0_9900, limit: 0xFFFF_FFFF),
      Case(selector: 0x50, rights: 0x00_8B00, limit: 0x67), Case(selector: 0),
      Case(selector: 0x200), Case(selector: 0x10, level: 3),
      Case(
        selector: 0x23, level: 3, rights: 0xC0_F300, limit: 0xFFFF_FFFF, isReadable: true,
        isWritable: true),
    ]
    for row in cases {
      var processor = processor(level: row.level)
      (processor.state[0], processor.state[3]) = (0xAAAA, row.selector)
      try processor.run(0x0F, 0x02, 0xC3)  // lar eax, ebx
      #expect(processor.state.flags.contains(.zero) == (row.rights != nil), "\(row)")
      #expect(processor.state[0] == row.rights ?? 0xAAAA, "\(row)")
      processor.state[0] = 0xAAAA
      try processor.run(0x0F, 0x03, 0xC3)  // lsl eax, ebx
      #expect(processor.state.flags.contains(.zero) == (row.limit != nil), "\(row)")
      #expect(processor.state[0] == row.limit ?? 0xAAAA, "\(row)")
      try processor.run(0x0F, 0x00, 0xE3)  // verr bx
      #expect(processor.state.flags.contains(.zero) == row.isReadable, "\(row)")
      try processor.run(0x0F, 0x00, 0xEB)  // verw bx
      #expect(processor.state.flags.contains(.zero) == row.isWritable, "\(row)")
    }
    var real = TestProcessor(bits: 16)
    real.state.special.cr0 &= ~1
    #expect(real.exception(0x0F, 0x02, 0xC3) == .invalidOpcode)
  }
}
