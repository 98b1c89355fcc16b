import CKVM
import CZydis

extension InstructionCompletion {
  static let transferHandlers: [(ZydisMnemonic, Handler)] = [
    (ZYDIS_MNEMONIC_INT3, breakpoint), (ZYDIS_MNEMONIC_INT1, debugTrap),
    (ZYDIS_MNEMONIC_INT, interrupt), (ZYDIS_MNEMONIC_INTO, overflowTrap),
    (ZYDIS_MNEMONIC_IRET, returnFromInterrupt), (ZYDIS_MNEMONIC_IRETD, returnFromInterrupt),
    (ZYDIS_MNEMONIC_IRETQ, returnFromInterrupt),
  ]

  // MARK: Software interrupts

  @Sendable private static func breakpoint(
    _ context: CompletionContext
  ) throws(CompletionStop) { try raise(3, context) }

  @Sendable private static func debugTrap(
    _ context: CompletionContext
  ) throws(CompletionStop) { context.trap = .debug }

  @Sendable private static func interrupt(
    _ context: CompletionContext
  ) throws(CompletionStop) { try raise(UInt8(truncatingIfNeeded: try context.value(0)), context) }

  @Sendable private static func overflowTrap(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try context.require(!context.state.is64Bit, else: .invalidOpcode)
    if context.state.flags.contains(.overflow) { try raise(4, context) }
  }

  /// Checks the gate as software's use of it is (SDM vol. 3, 6.12.1.2); in real mode
  /// there is none, and the vector is gone to at once.
  private static func raise(
    _ vector: UInt8, _ context: CompletionContext
  ) throws(CompletionStop) {
    guard context.state.special.cr0 & 1 != 0 else { return try raiseInRealMode(vector, context) }
    guard !context.state.isVirtual8086 else { throw .notCovered }
    let size = context.state.isLong ? 16 : 8
    let offset = UInt64(vector) * UInt64(size)
    let selector = UInt16(vector) << 3 | 2
    try context.require(
      offset + UInt64(size) - 1 <= UInt64(context.state.special.idt.limit),
      else: .generalProtection(selector))
    let gate = SegmentDescriptor(
      raw: UInt64(
        littleEndian: try context.memory.read(
          context.state.special.idt.base &+ offset, count: 8, isImplicit: true)))
    try context.require(
      gate.privilegeLevel >= context.state.privilegeLevel, else: .generalProtection(selector))
    try context.require(gate.isPresent, else: .segmentNotPresent(selector))
    context.softwareInterrupt = vector
  }

  private static func raiseInRealMode(
    _ vector: UInt8, _ context: CompletionContext
  ) throws(CompletionStop) {
    let table = context.state.special.idt
    let place = UInt64(vector) * 4
    try context.require(place + 3 <= UInt64(table.limit), else: .generalProtection())
    let target = try context.memory.read(table.base &+ place, count: 4)
    let pointer = (context.state.general.rsp &- 6) & 0xFFFF
    let stack = try context.linear(segment: 2, pointer, count: 6, isWrite: true)
    let frame =
      context.next.bytes(2) + UInt64(context.state.special.cs.selector).bytes(2)
      + context.state.general.rflags.bytes(2)
    try context.memory.write(stack, frame)
    context.state.set(4, pointer, bits: 16)
    context.state.flags.subtract([.interrupt, .trap, .alignmentCheck])
    loadRealMode(UInt16(truncatingIfNeeded: UInt64(littleEndian: target[2...])), context)
    context.next = UInt64(littleEndian: target[..<2])
  }

  private static func loadRealMode(_ selector: UInt16, _ context: CompletionContext) {
    context.state.special.cs.selector = selector
    context.state.special.cs.base = UInt64(selector) << 4
  }

  // MARK: IRET

  /// SDM vol. 2, IRET. Task returns and virtual-8086 mode are not covered.
  @Sendable private static func returnFromInterrupt(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    let width =
      switch UInt32(context.instruction.mnemonic) {
      case ZYDIS_MNEMONIC_IRETQ.rawValue: 8
      case ZYDIS_MNEMONIC_IRETD.rawValue: 4
      default: 2
      }
    guard !context.state.isVirtual8086 else { throw .notCovered }
    if context.state.special.cr0 & 1 == 0 { return try returnInRealMode(context, width) }
    if context.state.flags.contains(.nestedTask) {
      try context.require(!context.state.isLong, else: .generalProtection())
      throw .notCovered
    }
    try returnInProtectedMode(context, width)
    context.unmasksNMI = true
  }

  private static func returnInRealMode(
    _ context: CompletionContext, _ width: Int
  ) throws(CompletionStop) {
    let frame = try pop(context, width, count: 3)
    try context.require(
      frame[0] <= UInt64(context.state.special.cs.limit), else: .generalProtection())
    context.state.set(
      4, context.state.general.rsp &+ UInt64(3 * width), bits: context.state.stackBits)
    loadRealMode(UInt16(truncatingIfNeeded: frame[1]), context)
    context.next = frame[0].low(width * 8)
    setFlags(context, frame[2], width: width, level: 0, inputOutputLevel: 3)
    context.unmasksNMI = true
  }

  /// The `count` topmost words of the stack, which stay there.
  private static func pop(
    _ context: CompletionContext, _ width: Int, count: Int
  ) throws(CompletionStop) -> [UInt64] {
    let pointer = context.state.general.rsp.low(context.state.stackBits)
    let address = try context.linear(
      segment: 2, pointer, count: width * count, isWrite: false)
    let bytes = try context.memory.read(address, count: width * count)
    return (0..<count).map { UInt64(littleEndian: bytes[$0 * width..<($0 + 1) * width]) }
  }

  /// kvm_pvm, for which IRET is completed, delivers interrupts of 32-bit code with the frame
  /// at ESP, where it should be ESP from the stack segment's base on (iPXE has such stacks).
  /// What cannot be a frame where it belongs, but can there, is one that it left.
  private static func returnFrame(
    _ context: CompletionContext, _ width: Int
  ) throws(CompletionStop) -> [UInt64] {
    let frame = try pop(context, width, count: 3)
    let state = context.state
    guard state.special.ss.base != 0, width == 4, !state.isLong, state.privilegeLevel == 0,
      !canBeFrame(frame, context)
    else { return frame }
    let pointer = state.general.rsp.low(state.stackBits)
    guard let bytes = try? context.memory.read(pointer, count: 12) else { return frame }
    let other = (0..<3).map { UInt64(littleEndian: bytes[$0 * 4..<($0 + 1) * 4]) }
    return other[1] & 3 == 0 && canBeFrame(other, context) ? other : frame
  }

  /// Whether these can be EIP, CS and EFLAGS.
  private static func canBeFrame(_ frame: [UInt64], _ context: CompletionContext) -> Bool {
    // Bit 1 is always set; 3, 5, 15 and from 22 on never, nor VM, which is not covered.
    guard frame[1] <= 0xFFFF, frame[2] & 0xFFC2_802A == 2,
      let code = try? checkedCode(UInt16(truncatingIfNeeded: frame[1]), context)
    else { return false }
    return frame[0] <= UInt64(code.limit)
  }

  private static func returnInProtectedMode(
    _ context: CompletionContext, _ width: Int
  ) throws(CompletionStop) {
    let state = context.state
    var frame = try returnFrame(context, width)
    let level = state.privilegeLevel
    if frame[2] & Flags.virtual8086.rawValue != 0, width == 4, level == 0, !state.isLong {
      throw .notCovered
    }
    let selector = UInt16(truncatingIfNeeded: frame[1])
    let code = try checkedCode(selector, context)
    let outer = Int(selector & 3)
    if state.is64Bit || outer > level {
      frame = try pop(context, width, count: 5)
      try loadStack(
        UInt16(truncatingIfNeeded: frame[4]), frame[3], outer: outer, code, context)
    } else {
      context.state.set(
        4, state.general.rsp &+ UInt64(3 * width), bits: state.stackBits)
    }
    try checkTarget(frame[0], code, context)
    try context.markAccessed(selector, code)
    context.state.special.cs = code.loaded(selector)
    context.next = frame[0]
    setFlags(
      context, frame[2], width: width, level: level,
      inputOutputLevel: Int(state.general.rflags >> 12 & 3))
    if outer > level { dropInnerSegments(context, outer) }
  }

  private static func checkedCode(
    _ selector: UInt16, _ context: CompletionContext
  ) throws(CompletionStop) -> SegmentDescriptor {
    try context.require(selector & 0xFFFC != 0, else: .generalProtection())
    guard let code = try context.descriptor(selector) else {
      throw .fault(.generalProtection(selector))
    }
    let requested = Int(selector & 3)
    let fits =
      code.isCode && requested >= context.state.privilegeLevel
      && (code.isConforming ? code.privilegeLevel <= requested : code.privilegeLevel == requested)
      && !(context.state.isLong && code.isLong && code.isBig)
    try context.require(fits, else: .generalProtection(selector))
    try context.require(code.isPresent, else: .segmentNotPresent(selector))
    return code
  }

  private static func checkTarget(
    _ target: UInt64, _ code: SegmentDescriptor, _ context: CompletionContext
  ) throws(CompletionStop) {
    if context.state.isLong, code.isLong {
      let width = context.state.special.cr4 & (1 << 12) != 0 ? 57 : 48
      try context.require(target.isCanonical(width), else: .generalProtection())
    } else {
      try context.require(target <= UInt64(code.limit), else: .generalProtection())
    }
  }

  private static func loadStack(
    _ selector: UInt16, _ pointer: UInt64, outer: Int, _ code: SegmentDescriptor,
    _ context: CompletionContext
  ) throws(CompletionStop) {
    var bits = 64
    if selector & 0xFFFC == 0 {
      // A null SS is for 64-bit code below privilege level 3 only.
      try context.require(
        context.state.isLong && code.isLong && outer != 3, else: .generalProtection())
      var null = kvm_segment()
      null.selector = selector
      null.unusable = 1
      null.dpl = UInt8(outer)
      context.state.special.ss = null
    } else {
      guard let stack = try context.descriptor(selector) else {
        throw .fault(.generalProtection(selector))
      }
      let fits =
        Int(selector & 3) == outer && stack.isWritable && stack.privilegeLevel == outer
      try context.require(fits, else: .generalProtection(selector))
      try context.require(stack.isPresent, else: .stackFault(selector))
      try context.markAccessed(selector, stack)
      context.state.special.ss = stack.loaded(selector)
      bits = stack.isBig ? 32 : 16
    }
    if context.state.isLong, code.isLong { bits = 64 }
    context.state.set(4, pointer, bits: bits)
  }

  /// Data segments that the outer level must not keep become null.
  private static func dropInnerSegments(_ context: CompletionContext, _ outer: Int) {
    func kept(_ segment: kvm_segment) -> kvm_segment {
      let isConforming = segment.type & 0xC == 0xC
      guard segment.unusable == 0, !isConforming, Int(segment.dpl) < outer else { return segment }
      var null = segment
      null.selector = 0
      null.unusable = 1
      return null
    }
    context.state.special.es = kept(context.state.special.es)
    context.state.special.ds = kept(context.state.special.ds)
    context.state.special.fs = kept(context.state.special.fs)
    context.state.special.gs = kept(context.state.special.gs)
  }

  /// IOPL changes at level 0 only, IF where the level is not above IOPL.
  private static func setFlags(
    _ context: CompletionContext, _ value: UInt64, width: Int, level: Int, inputOutputLevel: Int
  ) {
    // CF PF AF ZF SF TF DF OF NT
    var mask: UInt64 = 0x4DD5
    if width > 2 { mask |= 0x25_0000 }  // RF AC ID
    if level <= inputOutputLevel { mask |= 0x200 }
    if level == 0 {
      mask |= 0x3000
      if width > 2 { mask |= 0x18_0000 }  // VIF VIP
    }
    context.state.general.rflags = context.state.general.rflags & ~mask | value & mask | 2
    context.keepsResumeFlag = true
  }
}
