import CKVM
import CZydis

/// One instruction on its way to completion: what it is, and the registers it works on.
/// They are the processor's only once it has succeeded.
package final class CompletionContext {
  package internal(set) var state: ProcessorState
  let instruction: czydis_instruction
  let port: any CompletionPort
  /// RIP afterwards.
  var next: UInt64
  /// Delivered when the instruction is done, as traps are.
  package internal(set) var trap: ProcessorException?
  /// A software interrupt to be delivered when the instruction is done.
  package internal(set) var softwareInterrupt: UInt8?
  package internal(set) var unmasksNMI = false
  /// RF is as the instruction left it; all others clear it.
  var keepsResumeFlag = false
  private var area: [UInt8]?
  private var areaChanged = false

  init(_ state: ProcessorState, _ instruction: czydis_instruction, _ port: any CompletionPort) {
    self.state = state
    self.instruction = instruction
    self.port = port
    next = Self.wrap(state.general.rip &+ UInt64(instruction.length), state)
  }

  private static func wrap(_ address: UInt64, _ state: ProcessorState) -> UInt64 {
    switch state.codeBits {
    case 64: address
    case 32: address & 0xFFFF_FFFF
    default: address & 0xFFFF
    }
  }

  var memory: LinearMemory { LinearMemory(state: state, port: port) }

  func operand(_ index: Int) -> czydis_operand {
    let all = instruction.operands
    return switch index {
    case 0: all.0
    case 1: all.1
    case 2: all.2
    default: all.3
    }
  }

  func isMemory(_ index: Int) -> Bool { operand(index).kind == UInt8(CZYDIS_MEMORY.rawValue) }
  func isVector(_ index: Int) -> Bool { operand(index).kind == UInt8(CZYDIS_VECTOR.rawValue) }
  func bits(_ index: Int) -> Int { Int(operand(index).bits) }

  func fail(_ exception: ProcessorException) throws(CompletionStop) {
    throw .fault(exception)
  }

  func require(
    _ condition: Bool, else exception: ProcessorException
  ) throws(CompletionStop) {
    if !condition { throw .fault(exception) }
  }

  // MARK: Operands of up to 64 bits

  func value(_ index: Int) throws(CompletionStop) -> UInt64 {
    let operand = operand(index)
    let bits = Int(operand.bits)
    switch Int(operand.kind) {
    case Int(CZYDIS_GENERAL.rawValue):
      let number = Int(operand.number)
      return operand.high != 0 ? state[number - 4] >> 8 & 0xFF : state[number].low(bits)
    case Int(CZYDIS_IMMEDIATE.rawValue): return operand.immediate.low(max(8, bits))
    case Int(CZYDIS_MEMORY.rawValue):
      return UInt64(littleEndian: try read(index, count: bits / 8))
    default: throw .notCovered
    }
  }

  func set(_ index: Int, _ value: UInt64) throws(CompletionStop) {
    let operand = operand(index)
    switch Int(operand.kind) {
    case Int(CZYDIS_GENERAL.rawValue):
      state.set(
        Int(operand.number), value, bits: Int(operand.bits), isHigh: operand.high != 0)
    case Int(CZYDIS_MEMORY.rawValue): try write(index, value.bytes(Int(operand.bits) / 8))
    default: throw .notCovered
    }
  }

  // MARK: Memory operands

  /// The offset in its segment (SDM vol. 1, 3.7.5).
  func offset(_ index: Int) -> UInt64 {
    let operand = operand(index)
    var offset = UInt64(bitPattern: operand.displacement)
    if operand.base == 16 {
      offset &+= next
    } else if operand.base != 0xFF {
      offset &+= state[Int(operand.base)].low(Int(instruction.address_width))
    }
    if operand.index != 0xFF {
      let part = state[Int(operand.index)].low(Int(instruction.address_width))
      offset &+= part &* UInt64(max(1, operand.scale))
    }
    return offset.low(Int(instruction.address_width))
  }

  /// The linear address of `count` bytes that a memory operand names, checked against
  /// its segment.
  func linear(
    _ index: Int, count: Int, isWrite: Bool
  ) throws(CompletionStop) -> UInt64 {
    try linear(
      segment: Int(operand(index).segment), offset(index), count: count, isWrite: isWrite)
  }

  func linear(
    segment number: Int, _ offset: UInt64, count: Int, isWrite: Bool
  ) throws(CompletionStop) -> UInt64 {
    let segment = state.segment(number)
    let fault: ProcessorException = number == 2 ? .stackFault() : .generalProtection()
    if state.is64Bit {
      let address = number >= 4 ? offset &+ segment.base : offset
      let width = state.special.cr4 & (1 << 12) != 0 ? 57 : 48
      try require(
        address.isCanonical(width) && (address &+ UInt64(max(1, count) - 1)).isCanonical(width),
        else: fault)
      return address
    }
    if state.isProtected {
      try require(segment.unusable == 0, else: fault)
      let isCode = segment.type & 8 != 0
      let isWritable = !isCode && segment.type & 2 != 0
      let isReadable = !isCode || segment.type & 2 != 0
      try require(isWrite ? isWritable : isReadable, else: fault)
    }
    try checkLimit(segment, offset, count, fault)
    return (segment.base &+ offset) & 0xFFFF_FFFF
  }

  private func checkLimit(
    _ segment: kvm_segment, _ offset: UInt64, _ count: Int, _ fault: ProcessorException
  ) throws(CompletionStop) {
    let last = offset &+ UInt64(max(1, count) - 1)
    let expandsDown = state.isProtected && segment.type & 0xC == 4
    if expandsDown {
      let top: UInt64 = segment.db != 0 ? 0xFFFF_FFFF : 0xFFFF
      try require(offset > UInt64(segment.limit) && last <= top, else: fault)
    } else {
      try require(last <= UInt64(segment.limit), else: fault)
    }
  }

  func read(_ index: Int, count: Int) throws(CompletionStop) -> [UInt8] {
    try memory.read(try linear(index, count: count, isWrite: false), count: count)
  }

  func write(_ index: Int, _ bytes: [UInt8]) throws(CompletionStop) {
    try memory.write(try linear(index, count: bytes.count, isWrite: true), bytes)
  }

  // MARK: Extended state

  /// As `CompletionPort.extendedState` has it.
  func extendedState() throws(CompletionStop) -> [UInt8] {
    if let area { return area }
    let loaded = try port.extendedState()
    guard loaded.count >= 576 else { throw .host("the extended state is too small") }
    area = loaded
    return loaded
  }

  func setExtendedState(_ new: [UInt8]) {
    area = new
    areaChanged = true
  }

  func vector(_ number: Int) throws(CompletionStop) -> [UInt8] {
    let start = 160 + 16 * (number & 15)
    return Array(try extendedState()[start..<start + 16])
  }

  func setVector(_ number: Int, _ bytes: [UInt8]) throws(CompletionStop) {
    var area = try extendedState()
    let start = 160 + 16 * (number & 15)
    area.replaceSubrange(start..<start + 16, with: bytes.prefix(16))
    // SSE state is in use from now on (XSTATE_BV).
    area[512] |= 2
    setExtendedState(area)
  }

  /// What is to be done once nothing can fault any more.
  func commit() throws(CompletionStop) {
    if areaChanged, let area { try port.setExtendedState(area) }
    state.general.rip = next
  }
}

extension CompletionContext {
  /// ZF, SF and PF as most instructions set them from a result.
  func setFlags(_ changed: Flags, to flags: Flags) {
    state.flags = state.flags.subtracting(changed).union(flags)
  }

  /// A flag if a condition holds.
  func flag(_ flag: Flags, _ condition: Bool) -> Flags { condition ? flag : [] }
}
