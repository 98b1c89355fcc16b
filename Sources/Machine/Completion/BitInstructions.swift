import CZydis

extension InstructionCompletion {
  /// BMI1 and BMI2 (SDM vol. 1, 5.1.16).
  static let bitHandlers: [(ZydisMnemonic, Handler)] = [
    (ZYDIS_MNEMONIC_ANDN, andNot), (ZYDIS_MNEMONIC_BEXTR, extract),
    (ZYDIS_MNEMONIC_BLSI, isolateLowest), (ZYDIS_MNEMONIC_BLSR, resetLowest),
    (ZYDIS_MNEMONIC_BLSMSK, maskToLowest), (ZYDIS_MNEMONIC_BZHI, zeroHigh),
    (ZYDIS_MNEMONIC_PDEP, deposit), (ZYDIS_MNEMONIC_PEXT, gather),
    (ZYDIS_MNEMONIC_MULX, multiply), (ZYDIS_MNEMONIC_RORX, rotate),
    (ZYDIS_MNEMONIC_SARX, shiftArithmetic), (ZYDIS_MNEMONIC_SHLX, shiftLeft),
    (ZYDIS_MNEMONIC_SHRX, shiftRight),
  ]

  /// They exist in protected mode only.
  private static func begin(_ context: CompletionContext) throws(CompletionStop) {
    try context.require(context.state.isProtected, else: .invalidOpcode)
  }

  private static func isNegative(_ value: UInt64, _ bits: Int) -> Bool {
    value >> UInt64(bits - 1) & 1 != 0
  }

  @Sendable private static func andNot(_ context: CompletionContext) throws(CompletionStop) {
    try begin(context)
    let bits = context.bits(0)
    let result = (~(try context.value(1)) & (try context.value(2))).low(bits)
    try context.set(0, result)
    context.setFlags(
      [.sign, .zero, .overflow, .carry],
      to: [
        context.flag(.sign, isNegative(result, bits)), context.flag(.zero, result == 0),
      ])
  }

  @Sendable private static func extract(_ context: CompletionContext) throws(CompletionStop) {
    try begin(context)
    let control = try context.value(2)
    let start = control & 0xFF
    let length = Int(control >> 8 & 0xFF)
    let source = try context.value(1)
    let result = (start > 63 ? 0 : source >> start).low(length)
    try context.set(0, result)
    context.setFlags(
      [.zero, .overflow, .carry], to: context.flag(.zero, result == 0))
  }

  @Sendable private static func isolateLowest(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try begin(context)
    let (source, bits) = (try context.value(1), context.bits(0))
    let result = (0 &- source) & source
    try context.set(0, result)
    context.setFlags(
      [.carry, .zero, .sign, .overflow],
      to: [
        context.flag(.carry, source != 0), context.flag(.zero, result == 0),
        context.flag(.sign, isNegative(result, bits)),
      ])
  }

  @Sendable private static func resetLowest(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try begin(context)
    let (source, bits) = (try context.value(1), context.bits(0))
    let result = (source &- 1).low(bits) & source
    try context.set(0, result)
    context.setFlags(
      [.carry, .zero, .sign, .overflow],
      to: [
        context.flag(.carry, source == 0), context.flag(.zero, result == 0),
        context.flag(.sign, isNegative(result, bits)),
      ])
  }

  @Sendable private static func maskToLowest(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try begin(context)
    let (source, bits) = (try context.value(1), context.bits(0))
    let result = ((source &- 1) ^ source).low(bits)
    try context.set(0, result)
    context.setFlags(
      [.carry, .zero, .sign, .overflow],
      to: [
        context.flag(.carry, source == 0), context.flag(.sign, isNegative(result, bits)),
      ])
  }

  @Sendable private static func zeroHigh(_ context: CompletionContext) throws(CompletionStop) {
    try begin(context)
    let (source, bits) = (try context.value(1), context.bits(0))
    let index = Int(try context.value(2) & 0xFF)
    let result = index < bits ? source.low(index) : source
    try context.set(0, result)
    context.setFlags(
      [.carry, .zero, .sign, .overflow],
      to: [
        context.flag(.carry, index > bits - 1), context.flag(.zero, result == 0),
        context.flag(.sign, isNegative(result, bits)),
      ])
  }

  @Sendable private static func deposit(_ context: CompletionContext) throws(CompletionStop) {
    try begin(context)
    var source = try context.value(1)
    var (mask, result): (UInt64, UInt64) = (try context.value(2), 0)
    while mask != 0 {
      let lowest = mask & (0 &- mask)
      if source & 1 != 0 { result |= lowest }
      source >>= 1
      mask &= mask &- 1
    }
    try context.set(0, result)
  }

  @Sendable private static func gather(_ context: CompletionContext) throws(CompletionStop) {
    try begin(context)
    let source = try context.value(1)
    var (mask, result, place): (UInt64, UInt64, UInt64) = (try context.value(2), 0, 1)
    while mask != 0 {
      if source & mask & (0 &- mask) != 0 { result |= place }
      place <<= 1
      mask &= mask &- 1
    }
    try context.set(0, result)
  }

  /// Where both destinations are the same register it has the high half.
  @Sendable private static func multiply(_ context: CompletionContext) throws(CompletionStop) {
    try begin(context)
    let bits = context.bits(0)
    let product = context.state[2].low(bits)
      .multipliedFullWidth(by: try context.value(2))
    if bits == 64 {
      try context.set(1, product.low)
      try context.set(0, product.high)
    } else {
      try context.set(1, product.low)
      try context.set(0, product.low >> 32)
    }
  }

  @Sendable private static func rotate(_ context: CompletionContext) throws(CompletionStop) {
    try begin(context)
    let (source, bits) = (try context.value(1), UInt64(context.bits(0)))
    let count = try context.value(2) & (bits - 1)
    try context.set(0, count == 0 ? source : source >> count | source << (bits - count))
  }

  private static func count(_ context: CompletionContext) throws(CompletionStop) -> UInt64 {
    try begin(context)
    return try context.value(2) & UInt64(context.bits(0) - 1)
  }

  @Sendable private static func shiftLeft(_ context: CompletionContext) throws(CompletionStop) {
    let count = try count(context)
    try context.set(0, try context.value(1) << count)
  }

  @Sendable private static func shiftRight(_ context: CompletionContext) throws(CompletionStop) {
    let count = try count(context)
    try context.set(0, try context.value(1) >> count)
  }

  @Sendable private static func shiftArithmetic(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    let count = try count(context)
    let source = try context.value(1)
    let signed =
      context.bits(0) == 64
      ? Int64(bitPattern: source) : Int64(Int32(truncatingIfNeeded: source))
    try context.set(0, UInt64(bitPattern: signed >> Int64(count)))
  }
}
