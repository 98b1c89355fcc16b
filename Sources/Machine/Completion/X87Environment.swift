import CX87
import CZydis

extension InstructionCompletion {
  /// FNSTENV, FNSAVE, FLDENV and FRSTOR. The host's FPU takes the tag word apart; the
  /// format in memory is that of the guest's mode (SDM vol. 1, 8.1.10).
  static let environmentHandlers: [(ZydisMnemonic, Handler)] = [
    (ZYDIS_MNEMONIC_FNSTENV, storeEnvironment), (ZYDIS_MNEMONIC_FNSAVE, storeEnvironment),
    (ZYDIS_MNEMONIC_FLDENV, loadEnvironment), (ZYDIS_MNEMONIC_FRSTOR, loadEnvironment),
  ]

  /// Seven words, or double words, in which reserved bits are set. Selectors are zero, as
  /// processors do not keep them any more.
  private struct Environment {
    var control: UInt64
    var status: UInt64
    var tags: UInt64
    var opcode: UInt64
    var instruction: UInt64
    var data: UInt64

    static func size(isWide: Bool) -> Int { isWide ? 28 : 14 }

    init(_ bytes: ArraySlice<UInt8>, isWide: Bool, isProtected: Bool) {
      let width = isWide ? 4 : 2
      let words = (0..<7).map { index in
        UInt64(littleEndian: bytes.dropFirst(index * width).prefix(width))
      }
      (control, status, tags) = (words[0] & 0xFFFF, words[1] & 0xFFFF, words[2] & 0xFFFF)
      if isProtected {
        opcode = isWide ? words[4] >> 16 & 0x7FF : 0
        (instruction, data) = (words[3], words[5])
      } else {
        opcode = words[4] & 0x7FF
        instruction = words[3] & 0xFFFF | words[4] << 4 & 0xFFFF_0000
        data = words[5] & 0xFFFF | words[6] << 4 & 0xFFFF_0000
      }
    }

    func bytes(isWide: Bool, isProtected: Bool) -> [UInt8] {
      let width = isWide ? 4 : 2
      let reserved: UInt64 = 0xFFFF_0000
      var words = [control | reserved, status | reserved, tags | reserved]
      if isProtected {
        words += [instruction, opcode << 16, data, reserved]
      } else {
        words += [
          instruction & 0xFFFF | reserved, instruction >> 4 & 0xFFF_F000 | opcode,
          data & 0xFFFF | reserved, data >> 4 & 0xFFF_F000,
        ]
      }
      return words.flatMap { $0.bytes(width) }
    }
  }

  /// Double words or words, with or without eight registers of 10 bytes behind them.
  private static func isWide(_ context: CompletionContext, _ place: Int) -> Bool {
    let size = context.bits(place) / 8
    return size == 28 || size == 108
  }

  private static func hasRegisters(_ context: CompletionContext) -> Bool {
    context.instruction.opcode == 0xDD
  }

  @Sendable private static func storeEnvironment(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    var area = try context.floatingPoint()
    try requireReady(context, area)
    guard let place = memoryOperand(context) else { throw .notCovered }
    let before = area
    let stored = try execute(context, &area, [])
    var environment = Environment(stored[...], isWide: true, isProtected: true)
    environment.opcode = before.opcode
    environment.instruction = before.instructionPointer
    environment.data = before.dataPointer
    let bytes = environment.bytes(
      isWide: isWide(context, place), isProtected: context.state.isProtected)
    let registers = stored[Environment.size(isWide: true)...]
    try context.write(place, bytes + (hasRegisters(context) ? Array(registers) : []))
    // FNSAVE clears them.
    let keeps = !hasRegisters(context)
    area.opcode = keeps ? before.opcode : 0
    area.instructionPointer = keeps ? before.instructionPointer : 0
    area.dataPointer = keeps ? before.dataPointer : 0
    context.setFloatingPoint(area)
  }

  @Sendable private static func loadEnvironment(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    var area = try context.floatingPoint()
    try requireReady(context, area)
    guard let place = memoryOperand(context) else { throw .notCovered }
    let isWide = isWide(context, place)
    let size = Environment.size(isWide: isWide)
    let bytes = try context.read(place, count: size + (hasRegisters(context) ? 80 : 0))
    var environment = Environment(
      bytes[...], isWide: isWide, isProtected: context.state.isProtected)
    let (opcode, instruction, data) = (
      environment.opcode, environment.instruction, environment.data
    )
    (environment.opcode, environment.instruction, environment.data) = (0, 0, 0)
    _ = try execute(
      context, &area, environment.bytes(isWide: true, isProtected: true) + bytes[size...])
    area.opcode = opcode
    area.instructionPointer = instruction
    area.dataPointer = data
    context.setFloatingPoint(area)
  }
}
