import CZydis

extension InstructionCompletion {
  /// Instructions on general registers that came after the Pentium Pro.
  static let integerHandlers: [(ZydisMnemonic, Handler)] = [
    (ZYDIS_MNEMONIC_POPCNT, populationCount), (ZYDIS_MNEMONIC_LZCNT, leadingZeros),
    (ZYDIS_MNEMONIC_TZCNT, trailingZeros), (ZYDIS_MNEMONIC_MOVBE, moveBigEndian),
    (ZYDIS_MNEMONIC_CRC32, crc32), (ZYDIS_MNEMONIC_ADCX, addWithCarry),
    (ZYDIS_MNEMONIC_ADOX, addWithOverflow),
    (ZYDIS_MNEMONIC_CMPXCHG8B, compareExchange8), (ZYDIS_MNEMONIC_CMPXCHG16B, compareExchange16),
    (ZYDIS_MNEMONIC_RDRAND, random), (ZYDIS_MNEMONIC_RDSEED, random),
    (ZYDIS_MNEMONIC_MOVNTI, moveNonTemporal),
  ]

  @Sendable private static func populationCount(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    let source = try context.value(1)
    try context.set(0, UInt64(source.nonzeroBitCount))
    context.setFlags(.arithmetic, to: context.flag(.zero, source == 0))
  }

  @Sendable private static func leadingZeros(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    let source = try context.value(1)
    let count = source.leadingZeroBitCount - (64 - context.bits(0))
    try context.set(0, UInt64(count))
    context.setFlags(
      [.carry, .zero],
      to: [context.flag(.carry, source == 0), context.flag(.zero, count == 0)])
  }

  @Sendable private static func trailingZeros(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    let source = try context.value(1)
    let count = min(source.trailingZeroBitCount, context.bits(0))
    try context.set(0, UInt64(count))
    context.setFlags(
      [.carry, .zero],
      to: [context.flag(.carry, source == 0), context.flag(.zero, count == 0)])
  }

  @Sendable private static func moveBigEndian(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    let bytes = try context.value(1).bytes(context.bits(0) / 8)
    try context.set(0, UInt64(littleEndian: bytes.reversed()))
  }

  @Sendable private static func moveNonTemporal(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try context.set(0, try context.value(1))
  }

  /// The CRC of polynomial 11EDC6F41H, bit-reflected.
  @Sendable private static func crc32(_ context: CompletionContext) throws(CompletionStop) {
    var sum = UInt32(truncatingIfNeeded: try context.value(0))
    for byte in try context.value(1).bytes(context.bits(1) / 8) {
      sum ^= UInt32(byte)
      for _ in 0..<8 { sum = sum >> 1 ^ (sum & 1 != 0 ? 0x82F6_3B78 : 0) }
    }
    try context.set(0, UInt64(sum))
  }

  @Sendable private static func addWithCarry(
    _ context: CompletionContext
  ) throws(CompletionStop) { try add(context, through: .carry) }

  @Sendable private static func addWithOverflow(
    _ context: CompletionContext
  ) throws(CompletionStop) { try add(context, through: .overflow) }

  private static func add(
    _ context: CompletionContext, through flag: Flags
  ) throws(CompletionStop) {
    let (left, right) = (try context.value(0), try context.value(1))
    let bits = context.bits(0)
    let (sum, first) = left.addingReportingOverflow(right)
    let (total, second) = sum.addingReportingOverflow(
      context.state.flags.contains(flag) ? 1 : 0)
    let carries = bits == 64 ? first || second : total >> 32 != 0
    try context.set(0, total)
    context.setFlags(flag, to: context.flag(flag, carries))
  }

  @Sendable private static func random(_ context: CompletionContext) throws(CompletionStop) {
    try context.set(0, context.port.random())
    context.setFlags(.arithmetic, to: .carry)
  }

  @Sendable private static func compareExchange8(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    func pair(_ high: UInt64, _ low: UInt64) -> [UInt8] { low.bytes(4) + high.bytes(4) }
    let state = context.state
    let old = try exchange(
      context, pair(state[2], state[0]), pair(state[1], state[3]))
    guard let old else { return }
    context.state.set(0, UInt64(littleEndian: old[..<4]), bits: 32)
    context.state.set(2, UInt64(littleEndian: old[4...]), bits: 32)
  }

  @Sendable private static func compareExchange16(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    let offset = try context.linear(0, count: 16, isWrite: true)
    try context.require(offset & 15 == 0, else: .generalProtection())
    let state = context.state
    let old = try exchange(
      context, state[0].bytes(8) + state[2].bytes(8), state[3].bytes(8) + state[1].bytes(8))
    guard let old else { return }
    context.state[0] = UInt64(littleEndian: old[..<8])
    context.state[2] = UInt64(littleEndian: old[8...])
  }

  /// Stores `new` where `expected` is, and says so in ZF.
  /// - Returns: what is there instead, if it is.
  private static func exchange(
    _ context: CompletionContext, _ expected: [UInt8], _ new: [UInt8]
  ) throws(CompletionStop) -> [UInt8]? {
    let count = expected.count
    let linear = try context.linear(0, count: count, isWrite: true)
    let old: [UInt8]
    if linear % UInt64(count) == 0 {
      // The access is a write, whatever comes of it.
      let physical = try context.memory.translate(linear, .init(isWrite: true))
      old = context.port.compareExchange(expected, new, physical: physical)
    } else {
      old = try context.memory.read(linear, count: count)
      try context.memory.write(linear, old == expected ? new : old)
    }
    context.setFlags(.zero, to: context.flag(.zero, old == expected))
    return old == expected ? nil : old
  }
}
