import DeviceModel

/// Drives an IDE controller with an arbitrary byte string, as a guest with bad
/// intentions would. Shared by the fuzz target and the tests.
package enum StorageFuzzing {
  /// Interprets `program` as register accesses, memory contents and the pace of the
  /// images, and saves and restores the controller on the way.
  ///
  /// - Returns: whether both drives answer a software reset as they should at the
  ///   end, whatever they were brought to.
  @discardableResult
  package static func run(_ program: [UInt8]) -> Bool {
    let bench = Bench()
    var rest = program[...]
    func next() -> UInt8 { rest.popFirst() ?? 0 }
    while let operation = rest.popFirst() {
      let channel =
        operation & 0x80 == 0 ? bench.controller.primary : bench.controller.secondary
      let width = 1 << Int(operation >> 5 & 3) & 7
      switch operation & 15 {
      case 0...3:
        channel.commandBlock.write(
          offset: UInt64(next() & 7), width: 1, value: UInt64(next()))
      case 4:
        let value = (0..<4).reduce(UInt64(0)) { value, _ in value << 8 | UInt64(next()) }
        channel.commandBlock.write(offset: 0, width: max(width, 2), value: value)
      case 5: for _ in 0..<next() { _ = channel.commandBlock.read(offset: 0, width: max(width, 2)) }
      case 6: for _ in 0..<next() { channel.commandBlock.write(offset: 0, width: 4, value: 0x55AA) }
      case 7: _ = channel.commandBlock.read(offset: UInt64(next() & 7), width: max(width, 1))
      case 8: channel.controlBlock.write(offset: 0, width: 1, value: UInt64(next()))
      case 9:
        let value = (0..<4).reduce(UInt64(0)) { value, _ in value << 8 | UInt64(next()) }
        bench.controller.busMasterPorts.write(
          offset: UInt64(next() & 15), width: max(width, 1), value: value)
      case 10: _ = bench.controller.busMasterPorts.read(offset: UInt64(next() & 15), width: 4)
      case 11: bench.complete(Int(next()))
      case 12: bench.restore()
      case 13: bench.describe(next(), next(), next(), isLast: operation & 0x40 != 0)
      case 14: packet(channel, (0..<12).map { _ in next() }, dma: operation & 0x40 != 0)
      default:
        switch operation >> 4 {
        case 0: bench.controller.reset()
        case 1: bench.controller.cdrom(at: 2)?.setMedium(nil)
        case 2: bench.controller.cdrom(at: 2)?.setMedium(bench.cd)
        case 3: bench.disk.fails.toggle()
        case 4: bench.controller.cdrom(at: 2)?.eject(force: next() & 1 != 0)
        default: command(channel, next(), sector: next(), count: next())
        }
      }
    }
    return bench.recovers()
  }

  /// A whole command with small numbers, which random registers rarely are.
  private static func command(
    _ channel: IDEChannel, _ command: UInt8, sector: UInt8, count: UInt8
  ) {
    for (register, value): (UInt64, UInt8) in [
      (6, 0xE0), (2, count), (3, sector), (4, 0), (5, 0), (7, command),
    ] {
      channel.commandBlock.write(offset: register, width: 1, value: UInt64(value))
    }
  }

  private static func packet(_ channel: IDEChannel, _ bytes: [UInt8], dma: Bool) {
    for (register, value): (UInt64, UInt64) in [(6, 0xA0), (1, dma ? 1 : 0), (7, 0xA0)] {
      channel.commandBlock.write(offset: register, width: 1, value: value)
    }
    for index in stride(from: 0, to: 12, by: 2) {
      channel.commandBlock.write(
        offset: 0, width: 2, value: UInt64(bytes[index]) | UInt64(bytes[index + 1]) << 8)
    }
  }

  private final class Bench {
    let disk = Image(byteCount: 512 * 300)
    let cd = Image(byteCount: 2048 * 64)
    let memory = Memory()
    let lines = (primary: Line(), secondary: Line())
    private(set) var controller: IDEController

    init() {
      controller = IDEController(
        attachments: [.disk(disk, serial: "F"), nil, .cdrom(cd), nil], memory: memory,
        interrupts: lines, state: nil)
      controller.function.setRegister(PCIRegister.command, width: 2, value: 5)
    }

    func restore() {
      // What the old controller still waits for is never completed.
      disk.forget()
      cd.forget()
      controller = IDEController(
        attachments: [.disk(disk, serial: "F"), nil, .cdrom(cd), nil], memory: memory,
        interrupts: lines, state: controller.saveState())
    }

    func complete(_ count: Int) {
      for _ in 0..<count where !disk.isIdle || !cd.isIdle {
        disk.completeOne()
        cd.completeOne()
      }
    }

    /// A descriptor table at 0x100, and the engines pointed there.
    func describe(_ index: UInt8, _ page: UInt8, _ size: UInt8, isLast: Bool) {
      let at = 0x100 + Int(index & 15) * 8
      // Page 0xFF lies outside RAM.
      let high: UInt8 = page == 0xFF ? 0xF0 : 0
      memory.bytes.replaceSubrange(
        at..<at + 8, with: [0, page, 0, high, 0, size, 0, isLast ? 0x80 : 0])
      for base: UInt64 in [4, 12] {
        controller.busMasterPorts.write(offset: base, width: 4, value: 0x100)
      }
    }

    func recovers() -> Bool {
      disk.fails = false
      for (channel, signature) in [(controller.primary, 0), (controller.secondary, 0xEB14)] {
        channel.controlBlock.write(offset: 0, width: 1, value: 4)
        channel.controlBlock.write(offset: 0, width: 1, value: 0)
        complete(1000)
        let low = channel.commandBlock.read(offset: 4, width: 1)
        let high = channel.commandBlock.read(offset: 5, width: 1)
        guard Int(low | high << 8) == signature else { return false }
        guard channel.controlBlock.read(offset: 0, width: 1) & 0x88 == 0 else { return false }
      }
      return true
    }
  }

  private final class Line: InterruptLine {
    func setLevel(_ asserted: Bool) {}
  }

  /// 64 KiB of RAM from address 0.
  final class Memory: GuestMemory {
    var bytes = [UInt8](repeating: 0, count: 1 << 16)

    func read(at address: UInt64, into buffer: UnsafeMutableRawBufferPointer)
      throws(GuestMemoryError)
    {
      buffer.copyBytes(from: bytes[try range(address, buffer.count)])
    }

    func write(at address: UInt64, from buffer: UnsafeRawBufferPointer) throws(GuestMemoryError) {
      bytes.replaceSubrange(try range(address, buffer.count), with: buffer)
    }

    private func range(_ address: UInt64, _ count: Int) throws(GuestMemoryError) -> Range<Int> {
      guard address <= UInt64(bytes.count), count <= bytes.count - Int(address) else {
        throw GuestMemoryError(address: address, count: count)
      }
      return Int(address)..<Int(address) + count
    }
  }

  /// An image in memory whose requests complete when told.
  final class Image: BlockBackend {
    private var bytes: [UInt8]
    private var pending: [() -> Void] = []
    var fails = false
    let isReadOnly = false
    var byteCount: UInt64 { UInt64(bytes.count) }
    var isIdle: Bool { pending.isEmpty }

    init(byteCount: Int) { bytes = Array(repeating: 0xA5, count: byteCount) }

    func forget() { pending = [] }
    func completeOne() { if !pending.isEmpty { pending.removeFirst()() } }

    func read(
      offset: UInt64, count: Int, completion: @escaping (Result<[UInt8], BlockError>) -> Void
    ) {
      pending.append { [self] in
        completion(range(offset, count).map { Array(bytes[$0]) })
      }
    }

    func write(
      offset: UInt64, bytes new: [UInt8], completion: @escaping (Result<Void, BlockError>) -> Void
    ) {
      pending.append { [self] in
        completion(range(offset, new.count).map { bytes.replaceSubrange($0, with: new) })
      }
    }

    func flush(completion: @escaping (Result<Void, BlockError>) -> Void) {
      pending.append { [self] in completion(range(0, 0).map { _ in }) }
    }

    func discard(
      offset: UInt64, count: UInt64, completion: @escaping (Result<Void, BlockError>) -> Void
    ) {
      pending.append { [self] in completion(range(offset, Int(clamping: count)).map { _ in }) }
    }

    func writeZeroes(
      offset: UInt64, count: UInt64, mayDiscard: Bool,
      completion: @escaping (Result<Void, BlockError>) -> Void
    ) {
      discard(offset: offset, count: count, completion: completion)
    }

    private func range(_ offset: UInt64, _ count: Int) -> Result<Range<Int>, BlockError> {
      if fails { return .failure(BlockError(kind: .medium, context: "asked to fail")) }
      guard offset <= byteCount, UInt64(count) <= byteCount - offset else {
        return .failure(BlockError(kind: .outOfRange, context: "beyond the end"))
      }
      return .success(Int(offset)..<Int(offset) + count)
    }
  }
}
