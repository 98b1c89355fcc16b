import CZydis

extension InstructionCompletion {
  /// The SSE and SSE2 instructions that kernels copy, clear, combine and compare with.
  static let vectorHandlers: [(ZydisMnemonic, Handler)] = {
    var all: [(ZydisMnemonic, Handler)] = [
      (ZYDIS_MNEMONIC_MOVD, moveLow), (ZYDIS_MNEMONIC_MOVQ, moveLow),
      (ZYDIS_MNEMONIC_MOVSS, moveScalar), (ZYDIS_MNEMONIC_MOVSD, moveScalar),
      (ZYDIS_MNEMONIC_MOVLPS, moveLowHalf), (ZYDIS_MNEMONIC_MOVLPD, moveLowHalf),
      (ZYDIS_MNEMONIC_MOVHPS, moveHighHalf), (ZYDIS_MNEMONIC_MOVHPD, moveHighHalf),
      (ZYDIS_MNEMONIC_MOVHLPS, moveHighToLow), (ZYDIS_MNEMONIC_MOVLHPS, unpackLow),
      (ZYDIS_MNEMONIC_PSHUFD, shuffle), (ZYDIS_MNEMONIC_PMOVMSKB, moveMask),
      (ZYDIS_MNEMONIC_PUNPCKLQDQ, unpackLow), (ZYDIS_MNEMONIC_PUNPCKHQDQ, unpackHigh),
      (ZYDIS_MNEMONIC_PSLLDQ, shiftBytesLeft), (ZYDIS_MNEMONIC_PSRLDQ, shiftBytesRight),
    ]
    for mnemonic in alignedMoves {
      all.append((mnemonic, { c throws(CompletionStop) in try move(c, isAligned: true) }))
    }
    for mnemonic in unalignedMoves {
      all.append((mnemonic, { c throws(CompletionStop) in try move(c, isAligned: false) }))
    }
    for (mnemonics, size, body) in combinations {
      for mnemonic in mnemonics {
        all.append((mnemonic, { c throws(CompletionStop) in try combine(c, size, body) }))
      }
    }
    return all
  }()

  private static let alignedMoves: [ZydisMnemonic] = [
    ZYDIS_MNEMONIC_MOVAPS, ZYDIS_MNEMONIC_MOVAPD, ZYDIS_MNEMONIC_MOVDQA,
    ZYDIS_MNEMONIC_MOVNTPS, ZYDIS_MNEMONIC_MOVNTPD, ZYDIS_MNEMONIC_MOVNTDQ,
    ZYDIS_MNEMONIC_MOVNTDQA,
  ]

  private static let unalignedMoves: [ZydisMnemonic] = [
    ZYDIS_MNEMONIC_MOVUPS, ZYDIS_MNEMONIC_MOVUPD, ZYDIS_MNEMONIC_MOVDQU, ZYDIS_MNEMONIC_LDDQU,
  ]

  typealias Combination = @Sendable (_ left: UInt64, _ right: UInt64) -> UInt64
  private typealias CombinationRow = ([ZydisMnemonic], Int, Combination)

  /// What is done to each lane of so many bytes.
  private static let combinations: [CombinationRow] = {
    let (add, subtract): (Combination, Combination) = ({ $0 &+ $1 }, { $0 &- $1 })
    let equal: Combination = { $0 == $1 ? .max : 0 }
    let logic: [CombinationRow] = [
      ([ZYDIS_MNEMONIC_PXOR, ZYDIS_MNEMONIC_XORPS, ZYDIS_MNEMONIC_XORPD], 8, { $0 ^ $1 }),
      ([ZYDIS_MNEMONIC_POR, ZYDIS_MNEMONIC_ORPS, ZYDIS_MNEMONIC_ORPD], 8, { $0 | $1 }),
      ([ZYDIS_MNEMONIC_PAND, ZYDIS_MNEMONIC_ANDPS, ZYDIS_MNEMONIC_ANDPD], 8, { $0 & $1 }),
      ([ZYDIS_MNEMONIC_PANDN, ZYDIS_MNEMONIC_ANDNPS, ZYDIS_MNEMONIC_ANDNPD], 8, { ~$0 & $1 }),
    ]
    let arithmetic: [CombinationRow] = [
      ([ZYDIS_MNEMONIC_PADDB], 1, add), ([ZYDIS_MNEMONIC_PADDW], 2, add),
      ([ZYDIS_MNEMONIC_PADDD], 4, add), ([ZYDIS_MNEMONIC_PADDQ], 8, add),
      ([ZYDIS_MNEMONIC_PSUBB], 1, subtract), ([ZYDIS_MNEMONIC_PSUBW], 2, subtract),
      ([ZYDIS_MNEMONIC_PSUBD], 4, subtract), ([ZYDIS_MNEMONIC_PSUBQ], 8, subtract),
      ([ZYDIS_MNEMONIC_PCMPEQB], 1, equal), ([ZYDIS_MNEMONIC_PCMPEQW], 2, equal),
      ([ZYDIS_MNEMONIC_PCMPEQD], 4, equal),
    ]
    return logic + arithmetic
  }()

  /// SSE registers only: MMX is covered by none of these.
  private static func begin(_ context: CompletionContext) throws(CompletionStop) {
    try requireVectors(context)
    guard context.isVector(0) || context.isVector(1) else { throw .notCovered }
  }

  private static func register(_ context: CompletionContext, _ index: Int) -> Int {
    Int(context.operand(index).number)
  }

  /// A 16-byte operand; memory ones must be aligned unless the instruction says otherwise.
  private static func bytes(
    _ context: CompletionContext, _ index: Int, isAligned: Bool = true
  ) throws(CompletionStop) -> [UInt8] {
    if context.isVector(index) { return try context.vector(register(context, index)) }
    guard context.isMemory(index) else { throw .notCovered }
    let address = try context.linear(index, count: 16, isWrite: false)
    if isAligned { try context.require(address & 15 == 0, else: .generalProtection()) }
    return try context.memory.read(address, count: 16)
  }

  private static func move(
    _ context: CompletionContext, isAligned: Bool
  ) throws(CompletionStop) {
    try begin(context)
    let value = try bytes(context, 1, isAligned: isAligned)
    if context.isVector(0) {
      return try context.setVector(register(context, 0), value)
    }
    let address = try context.linear(0, count: 16, isWrite: true)
    if isAligned { try context.require(address & 15 == 0, else: .generalProtection()) }
    try context.memory.write(address, value)
  }

  private static func combine(
    _ context: CompletionContext, _ size: Int, _ body: Combination
  ) throws(CompletionStop) {
    try begin(context)
    let (left, right) = (try bytes(context, 0), try bytes(context, 1))
    var result: [UInt8] = []
    for lane in stride(from: 0, to: 16, by: size) {
      let value = body(
        UInt64(littleEndian: left[lane..<lane + size]),
        UInt64(littleEndian: right[lane..<lane + size]))
      result += value.bytes(size)
    }
    try context.setVector(register(context, 0), result)
  }

  // MARK: Parts of a register

  /// MOVD and MOVQ: to a vector register the rest becomes zero.
  @Sendable private static func moveLow(_ context: CompletionContext) throws(CompletionStop) {
    try begin(context)
    let mnemonic = UInt32(context.instruction.mnemonic)
    let isQuad = mnemonic == ZYDIS_MNEMONIC_MOVQ.rawValue || context.bits(0) == 64
    let count = isQuad || context.bits(1) == 64 ? 8 : 4
    let value: [UInt8] =
      if context.isVector(1) {
        Array(try context.vector(register(context, 1)).prefix(count))
      } else if context.isMemory(1) {
        try context.read(1, count: count)
      } else {
        try context.value(1).bytes(count)
      }
    if context.isVector(0) {
      try context.setVector(
        register(context, 0), value + Array(repeating: 0, count: 16 - count))
    } else if context.isMemory(0) {
      try context.write(0, value)
    } else {
      try context.set(0, UInt64(littleEndian: value))
    }
  }

  /// Between registers the rest stays; from memory it becomes zero.
  @Sendable private static func moveScalar(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try begin(context)
    let count = UInt32(context.instruction.mnemonic) == ZYDIS_MNEMONIC_MOVSS.rawValue ? 4 : 8
    guard context.isVector(0) else {
      return try context.write(0, Array(try context.vector(register(context, 1)).prefix(count)))
    }
    let target = register(context, 0)
    if context.isVector(1) {
      let value = try context.vector(register(context, 1)).prefix(count)
      try context.setVector(target, Array(value + (try context.vector(target))[count...]))
    } else {
      let value = try context.read(1, count: count)
      try context.setVector(target, value + Array(repeating: 0, count: 16 - count))
    }
  }

  @Sendable private static func moveLowHalf(
    _ context: CompletionContext
  ) throws(CompletionStop) { try moveHalf(context, 0..<8) }

  @Sendable private static func moveHighHalf(
    _ context: CompletionContext
  ) throws(CompletionStop) { try moveHalf(context, 8..<16) }

  private static func moveHalf(
    _ context: CompletionContext, _ half: Range<Int>
  ) throws(CompletionStop) {
    try begin(context)
    guard context.isVector(0) else {
      return try context.write(0, Array(try context.vector(register(context, 1))[half]))
    }
    var value = try context.vector(register(context, 0))
    value.replaceSubrange(half, with: try context.read(1, count: 8))
    try context.setVector(register(context, 0), value)
  }

  @Sendable private static func moveHighToLow(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try begin(context)
    let value = try bytes(context, 1)[8...] + (try bytes(context, 0)[8...])
    try context.setVector(register(context, 0), Array(value))
  }

  @Sendable private static func unpackLow(_ context: CompletionContext) throws(CompletionStop) {
    try begin(context)
    let value = try bytes(context, 0)[..<8] + (try bytes(context, 1)[..<8])
    try context.setVector(register(context, 0), Array(value))
  }

  @Sendable private static func unpackHigh(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try begin(context)
    let value = try bytes(context, 0)[8...] + (try bytes(context, 1)[8...])
    try context.setVector(register(context, 0), Array(value))
  }

  @Sendable private static func shuffle(_ context: CompletionContext) throws(CompletionStop) {
    try begin(context)
    let (source, order) = (try bytes(context, 1), Int(try context.value(2)))
    let value = (0..<4).flatMap { lane in
      let start = (order >> (lane * 2) & 3) * 4
      return source[start..<start + 4]
    }
    try context.setVector(register(context, 0), Array(value))
  }

  @Sendable private static func moveMask(_ context: CompletionContext) throws(CompletionStop) {
    try begin(context)
    let mask = try bytes(context, 1).enumerated().reduce(UInt64(0)) { mask, byte in
      mask | UInt64(byte.element >> 7) << UInt64(byte.offset)
    }
    try context.set(0, mask)
  }

  @Sendable private static func shiftBytesLeft(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try begin(context)
    let count = Int(min(16, try context.value(1)))
    let value = try bytes(context, 0)
    try context.setVector(
      register(context, 0), Array(repeating: 0, count: count) + value.prefix(16 - count))
  }

  @Sendable private static func shiftBytesRight(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try begin(context)
    let count = Int(min(16, try context.value(1)))
    let value = try bytes(context, 0)
    try context.setVector(
      register(context, 0), Array(value.dropFirst(count)) + Array(repeating: 0, count: count))
  }
}
