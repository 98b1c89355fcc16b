import CX87
import CZydis

extension InstructionCompletion {
  /// The x87 instructions that compute, compare and move: the host's own FPU does them on
  /// the guest's state, with the guest's masks, so that rounding, special values and what
  /// an exception leaves behind are the processor's.
  static let x87Handlers: [(ZydisMnemonic, Handler)] =
    (moves + constants + arithmetic + comparisons + functions + management).map { ($0, compute) }

  private static let moves: [ZydisMnemonic] = [
    ZYDIS_MNEMONIC_FLD, ZYDIS_MNEMONIC_FST, ZYDIS_MNEMONIC_FSTP, ZYDIS_MNEMONIC_FILD,
    ZYDIS_MNEMONIC_FIST, ZYDIS_MNEMONIC_FISTP, ZYDIS_MNEMONIC_FISTTP, ZYDIS_MNEMONIC_FBLD,
    ZYDIS_MNEMONIC_FBSTP, ZYDIS_MNEMONIC_FXCH, ZYDIS_MNEMONIC_FCMOVB, ZYDIS_MNEMONIC_FCMOVBE,
    ZYDIS_MNEMONIC_FCMOVE, ZYDIS_MNEMONIC_FCMOVNB, ZYDIS_MNEMONIC_FCMOVNBE,
    ZYDIS_MNEMONIC_FCMOVNE, ZYDIS_MNEMONIC_FCMOVNU, ZYDIS_MNEMONIC_FCMOVU,
  ]

  private static let constants: [ZydisMnemonic] = [
    ZYDIS_MNEMONIC_FLD1, ZYDIS_MNEMONIC_FLDL2E, ZYDIS_MNEMONIC_FLDL2T, ZYDIS_MNEMONIC_FLDLG2,
    ZYDIS_MNEMONIC_FLDLN2, ZYDIS_MNEMONIC_FLDPI, ZYDIS_MNEMONIC_FLDZ,
  ]

  private static let arithmetic: [ZydisMnemonic] = [
    ZYDIS_MNEMONIC_FADD, ZYDIS_MNEMONIC_FADDP, ZYDIS_MNEMONIC_FIADD, ZYDIS_MNEMONIC_FSUB,
    ZYDIS_MNEMONIC_FSUBP, ZYDIS_MNEMONIC_FISUB, ZYDIS_MNEMONIC_FSUBR, ZYDIS_MNEMONIC_FSUBRP,
    ZYDIS_MNEMONIC_FISUBR, ZYDIS_MNEMONIC_FMUL, ZYDIS_MNEMONIC_FMULP, ZYDIS_MNEMONIC_FIMUL,
    ZYDIS_MNEMONIC_FDIV, ZYDIS_MNEMONIC_FDIVP, ZYDIS_MNEMONIC_FIDIV, ZYDIS_MNEMONIC_FDIVR,
    ZYDIS_MNEMONIC_FDIVRP, ZYDIS_MNEMONIC_FIDIVR, ZYDIS_MNEMONIC_FABS, ZYDIS_MNEMONIC_FCHS,
    ZYDIS_MNEMONIC_FSQRT, ZYDIS_MNEMONIC_FPREM, ZYDIS_MNEMONIC_FPREM1, ZYDIS_MNEMONIC_FRNDINT,
    ZYDIS_MNEMONIC_FSCALE, ZYDIS_MNEMONIC_FXTRACT,
  ]

  private static let comparisons: [ZydisMnemonic] = [
    ZYDIS_MNEMONIC_FCOM, ZYDIS_MNEMONIC_FCOMP, ZYDIS_MNEMONIC_FCOMPP, ZYDIS_MNEMONIC_FUCOM,
    ZYDIS_MNEMONIC_FUCOMP, ZYDIS_MNEMONIC_FUCOMPP, ZYDIS_MNEMONIC_FICOM, ZYDIS_MNEMONIC_FICOMP,
    ZYDIS_MNEMONIC_FCOMI, ZYDIS_MNEMONIC_FCOMIP, ZYDIS_MNEMONIC_FUCOMI, ZYDIS_MNEMONIC_FUCOMIP,
    ZYDIS_MNEMONIC_FTST, ZYDIS_MNEMONIC_FXAM,
  ]

  private static let functions: [ZydisMnemonic] = [
    ZYDIS_MNEMONIC_F2XM1, ZYDIS_MNEMONIC_FYL2X, ZYDIS_MNEMONIC_FYL2XP1, ZYDIS_MNEMONIC_FSIN,
    ZYDIS_MNEMONIC_FCOS, ZYDIS_MNEMONIC_FSINCOS, ZYDIS_MNEMONIC_FPTAN, ZYDIS_MNEMONIC_FPATAN,
  ]

  private static let management: [ZydisMnemonic] = [
    ZYDIS_MNEMONIC_FINCSTP, ZYDIS_MNEMONIC_FDECSTP, ZYDIS_MNEMONIC_FFREE,
    ZYDIS_MNEMONIC_FFREEP, ZYDIS_MNEMONIC_FNOP, ZYDIS_MNEMONIC_FENI8087_NOP,
    ZYDIS_MNEMONIC_FDISI8087_NOP, ZYDIS_MNEMONIC_FSETPM287_NOP,
  ]

  @Sendable private static func compute(_ context: CompletionContext) throws(CompletionStop) {
    var area = try context.floatingPoint()
    try requireReady(context, area)
    let place = memoryOperand(context)
    let isStore = place != nil && isStore(context)
    var operand: [UInt8] = []
    if let place, !isStore { operand = try context.read(place, count: context.bits(place) / 8) }
    let before = area
    let result = try execute(context, &area, operand)
    // An exception before the result leaves the operand in memory as it was.
    if let place, isStore, area.waiting & ~FloatingPointArea.precision == 0 {
      try context.write(place, Array(result.prefix(context.bits(place) / 8)))
    }
    area.opcode = before.opcode
    area.instructionPointer = before.instructionPointer
    area.dataPointer = before.dataPointer
    if !isControl(context) { record(context, place, &area) }
    context.setFloatingPoint(area)
  }

  // MARK: Shared with the environment's

  /// #MF for an exception that waits, unless the instruction does not ask.
  static func requireReady(
    _ context: CompletionContext, _ area: FloatingPointArea
  ) throws(CompletionStop) {
    let instruction = context.instruction
    switch cx87_check(instruction.opcode, instruction.modrm, area.image) {
    case CX87_DONE: break
    case CX87_WAITING: throw .fault(.floatingPoint)
    default: throw .notCovered
    }
  }

  static func memoryOperand(_ context: CompletionContext) -> Int? {
    (0..<Int(context.instruction.operand_count)).first(where: context.isMemory)
  }

  /// Has the host's FPU do it, except for memory.
  ///
  /// - Returns: the memory operand afterwards, longer than it is.
  static func execute(
    _ context: CompletionContext, _ area: inout FloatingPointArea, _ operand: [UInt8]
  ) throws(CompletionStop) -> [UInt8] {
    let instruction = context.instruction
    var image = area.image
    let room = Int(CX87_OPERAND) - operand.count
    guard room >= 0 else { throw .notCovered }
    var operand = operand + Array(repeating: 0, count: room)
    var flags = context.state.general.rflags
    switch cx87_execute(instruction.opcode, instruction.modrm, &image, &operand, &flags) {
    case CX87_DONE: break
    case CX87_WAITING: throw .fault(.floatingPoint)
    default: throw .notCovered
    }
    context.state.general.rflags = flags
    area.replaceImage(image)
    return operand
  }

  /// FST, FSTP, FIST, FISTP, FISTTP, FBSTP.
  private static func isStore(_ context: CompletionContext) -> Bool {
    let stores: [UInt8: [UInt8]] = [
      0xD9: [2, 3], 0xDB: [1, 2, 3, 7], 0xDD: [1, 2, 3], 0xDF: [1, 2, 3, 6, 7],
    ]
    let instruction = context.instruction
    return stores[instruction.opcode]?.contains(instruction.modrm >> 3 & 7) ?? false
  }

  /// FNENI, FNDISI and FNSETPM do nothing at all since the 80387.
  private static func isControl(_ context: CompletionContext) -> Bool {
    context.instruction.opcode == 0xDB && (0xE0..<0xE8).contains(context.instruction.modrm)
  }

  /// What an exception handler would ask for (SDM vol. 1, 8.1.8 and 8.1.9): offsets, in
  /// real mode linear addresses.
  private static func record(
    _ context: CompletionContext, _ place: Int?, _ area: inout FloatingPointArea
  ) {
    let (state, instruction) = (context.state, context.instruction)
    let isReal = !state.isProtected
    area.opcode = UInt64(instruction.opcode & 7) << 8 | UInt64(instruction.modrm)
    area.instructionPointer = state.general.rip &+ (isReal ? state.special.cs.base : 0)
    guard let place else { return }
    let segment = state.segment(Int(context.operand(place).segment))
    area.dataPointer = context.offset(place) &+ (isReal ? segment.base : 0)
  }
}
