import CKVM
import CLinux
import KVM
import LinuxSystem

/// What instructions that are completed for a vCPU see of its board. Used on the vCPU's
/// thread between two runs, device lock held.
final class CompletionBridge: CompletionPort {
  private let cpu: VirtualCPU
  private unowned let board: Board
  private(set) lazy var components: [ExtendedComponent] = Self.components(of: board.system)

  init(_ cpu: VirtualCPU, _ board: Board) {
    self.cpu = cpu
    self.board = board
  }

  // MARK: Physical memory

  /// What KVM has a slot for; RAM, video memory, ROM for reading.
  private func slot(
    _ address: UInt64, _ count: Int, isWrite: Bool
  ) -> UnsafeMutableRawBufferPointer? {
    (isWrite
      ? board.memory.bytes(at: address, count: count)
      : board.memory.readableBytes(at: address, count: count))
      ?? board.addresses.videoBytes(at: address, count: count, isWrite: isWrite)
      ?? (isWrite ? nil : board.memory.romBytes(at: address, count: count))
  }

  /// As `readPhysical`, where there is memory to fetch instructions from.
  func fetch(_ address: UInt64, count: Int) -> [UInt8]? {
    slot(address, count, isWrite: false).map(Array.init)
  }

  func readPhysical(_ address: UInt64, count: Int) -> [UInt8] {
    if let bytes = slot(address, count, isWrite: false) { return Array(bytes) }
    var result: [UInt8] = []
    for (start, width) in Self.accesses(address, count) {
      result += board.addresses.memory.read(address: start, width: width).bytes(width)
    }
    return result
  }

  func writePhysical(_ address: UInt64, _ bytes: [UInt8]) {
    if let target = slot(address, bytes.count, isWrite: true) {
      return target.copyBytes(from: bytes)
    }
    var done = 0
    for (start, width) in Self.accesses(address, bytes.count) {
      board.addresses.memory.write(
        address: start, width: width,
        value: UInt64(littleEndian: bytes[done..<done + width]))
      done += width
    }
  }

  /// Device registers are reached by the widest accesses that are aligned.
  private static func accesses(_ address: UInt64, _ count: Int) -> [(UInt64, Int)] {
    var accesses: [(UInt64, Int)] = []
    var done = 0
    while done < count {
      let at = address &+ UInt64(done)
      let width: Int = [8, 4, 2].first(where: { at % UInt64($0) == 0 && count - done >= $0 }) ?? 1
      accesses.append((at, width))
      done += width
    }
    return accesses
  }

  func setBits(_ bits: UInt32, physical address: UInt64) {
    guard address % 4 == 0, let base = slot(address, 4, isWrite: true)?.baseAddress else { return }
    // SAFETY: 4 aligned bytes of a slot, which stays mapped while the board lives.
    clinux_atomic_or_32(base, bits)
  }

  func compareExchange(
    _ expected: [UInt8], _ new: [UInt8], physical address: UInt64
  ) -> [UInt8] {
    guard let base = slot(address, new.count, isWrite: true)?.baseAddress,
      address % UInt64(new.count) == 0
    else {
      // Registers of devices have no atomic access; nor does a bus that has none.
      let before = readPhysical(address, count: new.count)
      if before == expected { writePhysical(address, new) }
      return before
    }
    var before = expected
    // SAFETY: `new.count` aligned bytes of a slot; arrays of as many bytes.
    if new.count == 16 {
      clinux_compare_exchange_128(base, &before, new)
    } else {
      clinux_compare_exchange_64(base, &before, new)
    }
    return before
  }

  // MARK: State beside the registers

  func modelSpecificRegister(_ index: UInt32) throws(CompletionStop) -> UInt64 {
    let value = try host { () throws(KVMError) in try cpu.modelSpecificRegister(index) }
    guard let value else { throw .fault(.generalProtection()) }
    return value
  }

  func setModelSpecificRegister(_ index: UInt32, _ value: UInt64) throws(CompletionStop) {
    try host { () throws(KVMError) in
      try cpu.set([VirtualCPU.ModelSpecificRegister(index: index, value: value)])
    }
    guard try modelSpecificRegister(index) == value else { throw .fault(.generalProtection()) }
  }

  func extendedControlRegister() throws(CompletionStop) -> UInt64 {
    try host { () throws(KVMError) in try cpu.extendedControlRegister() }
  }

  func setExtendedControlRegister(_ value: UInt64) throws(CompletionStop) {
    guard cpu.setExtendedControlRegister(value) else { throw .fault(.generalProtection()) }
  }

  func extendedState() throws(CompletionStop) -> [UInt8] {
    try host { () throws(KVMError) in try cpu.extendedState() }
  }

  func setExtendedState(_ area: [UInt8]) throws(CompletionStop) {
    try host { () throws(KVMError) in try cpu.setExtendedState(area) }
  }

  /// A change of CR4.PGE makes any processor forget all translations.
  func flushTranslations() throws(CompletionStop) {
    try host { () throws(KVMError) in
      let special = try cpu.specialRegisters()
      var changed = special
      changed.cr4 ^= 1 << 7
      try cpu.set(changed)
      try cpu.set(special)
    }
  }

  func random() -> UInt64 { UInt64.random(in: .min ... .max) }

  private func host<Result>(
    _ body: () throws(KVMError) -> Result
  ) throws(CompletionStop) -> Result {
    do {
      return try body()
    } catch {
      throw .host("\(error)")
    }
  }

  /// CPUID leaf 0DH, sub-leaves 2 and up (SDM vol. 2, CPUID).
  private static func components(of system: KVMSystem) -> [ExtendedComponent] {
    let leaves = (try? system.supportedCPUID()) ?? []
    return leaves.filter { $0.function == 0xD && $0.index >= 2 && $0.eax > 0 }.map {
      ExtendedComponent(
        number: Int($0.index), size: Int($0.eax), offset: Int($0.ebx),
        isAligned: $0.ecx & 2 != 0)
    }
  }
}
