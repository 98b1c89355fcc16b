import DeviceModel

/// One channel's half of the PIIX3 bus master IDE registers, and the engine that
/// moves bytes between a drive and memory along the guest's descriptor table.
///
/// Intel 82371SB datasheet, 2.3.5, and "Programming Interface for Bus Master IDE
/// Controller", 1.0.
package final class BusMaster {
  private enum Register {
    static let command = 0
    static let status = 2
    static let descriptorTable = 4
  }

  /// Start/stop; the direction bit is remembered, the drive knows it.
  private static let start: UInt8 = 0x01
  private static let commandMask: UInt8 = 0x09

  private enum Status {
    static let active: UInt8 = 0x01
    static let error: UInt8 = 0x02
    static let interrupt: UInt8 = 0x04
    static let driveCapable: UInt8 = 0x60
  }

  /// A physical region descriptor, as far as it was used.
  package struct Region: Codable, Sendable, Equatable {
    var address: UInt64
    var count: Int
    var isLast: Bool
  }

  package struct State: Codable, Sendable {
    package var version = 1
    package var command: UInt8 = 0
    package var status: UInt8 = 0
    package var descriptorTable: UInt32 = 0
    package var nextDescriptor: UInt64 = 0
    package var region: Region?
  }

  private enum Failure: Error { case tableTooShort, notMemory }

  private var state: State
  private let memory: any GuestMemory
  private let mayMaster: () -> Bool
  weak var channel: IDEChannel?

  /// - Parameter mayMaster: whether the function's bus master bit is set.
  init(memory: any GuestMemory, mayMaster: @escaping () -> Bool, state: State?) {
    self.memory = memory
    self.mayMaster = mayMaster
    self.state = state ?? State()
  }

  func saveState() -> State { state }
  func reset() { state = State() }

  var isActive: Bool { state.status & Status.active != 0 }

  /// A drive raised its interrupt: it is done, or failed. The engine is done too,
  /// unless its table describes more than the drive moved.
  func noteInterrupt(failed: Bool) {
    state.status |= Status.interrupt
    if failed || state.region?.isLast == true && state.region?.count == 0 {
      state.status &= ~Status.active
    }
  }

  // MARK: - Registers

  func read(_ offset: Int, width: Int) -> UInt32 {
    (0..<width).reduce(0) { $0 | UInt32(readByte(offset + $1)) << UInt32($1 * 8) }
  }

  private func readByte(_ offset: Int) -> UInt8 {
    switch offset {
    case Register.command: state.command
    case Register.status: state.status
    case Register.descriptorTable..<8:
      UInt8(truncatingIfNeeded: state.descriptorTable >> UInt32((offset - 4) * 8))
    default: 0xFF
    }
  }

  func write(_ offset: Int, width: Int, value: UInt32) {
    for index in 0..<width {
      writeByte(offset + index, UInt8(truncatingIfNeeded: value >> UInt32(index * 8)))
    }
  }

  private func writeByte(_ offset: Int, _ value: UInt8) {
    switch offset {
    case Register.command: writeCommand(value)
    case Register.status:
      state.status &= ~(value & (Status.error | Status.interrupt))
      state.status = state.status & ~Status.driveCapable | value & Status.driveCapable
    case Register.descriptorTable..<8:
      let shift = UInt32((offset - 4) * 8)
      state.descriptorTable &= ~(0xFF << shift)
      state.descriptorTable |= UInt32(value) << shift
      state.descriptorTable &= ~3
    default: break
    }
  }

  private func writeCommand(_ value: UInt8) {
    let before = state.command
    state.command = value & Self.commandMask
    if value & Self.start == 0 {
      // Stopping loses the place in the table.
      state.status &= ~Status.active
    } else if before & Self.start == 0 {
      state.status |= Status.active
      state.nextDescriptor = UInt64(state.descriptorTable)
      state.region = nil
      channel?.runDMA()
    }
  }

  // MARK: - Engine

  /// Moves what `drive` has or wants, until it waits for its image or is done.
  func run(_ drive: IDEDrive) {
    while isActive, drive.isReadyForDMA {
      do {
        if let bytes = drive.bytesForMemory {
          try scatter(bytes)
          drive.memoryWritten()
        } else {
          drive.memoryRead(try gather(drive.countFromMemory))
        }
      } catch {
        return fail(error, drive)
      }
    }
  }

  private func fail(_ failure: Failure, _ drive: IDEDrive) {
    state.status &= ~Status.active
    switch failure {
    case .tableTooShort:
      // Neither active nor interrupting tells the driver (Bus Master IDE, 3.1).
      drive.cancel()
      drive.taskFile.status = .idle
    case .notMemory:
      state.status |= Status.error
      drive.abort()
    }
  }

  private func scatter(_ bytes: [UInt8]) throws(Failure) {
    var rest = ArraySlice(bytes)
    while !rest.isEmpty {
      let part = try nextPart(atMost: rest.count)
      guard write(rest.prefix(part.count), at: part.address) else { throw .notMemory }
      rest = rest.dropFirst(part.count)
    }
  }

  private func gather(_ count: Int) throws(Failure) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count)
    while bytes.count < count {
      let part = try nextPart(atMost: count - bytes.count)
      guard let piece = read(part.count, at: part.address) else { throw .notMemory }
      bytes += piece
    }
    return bytes
  }

  private func write(_ bytes: ArraySlice<UInt8>, at address: UInt64) -> Bool {
    // SAFETY: the buffer is used only within the call.
    bytes.withUnsafeBytes { buffer in
      do {
        try memory.write(at: address, from: buffer)
        return true
      } catch {
        return false
      }
    }
  }

  private func read(_ count: Int, at address: UInt64) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    // SAFETY: the buffer is used only within the call.
    let isMemory = bytes.withUnsafeMutableBytes { buffer in
      do {
        try memory.read(at: address, into: buffer)
        return true
      } catch {
        return false
      }
    }
    return isMemory ? bytes : nil
  }

  /// The next piece of memory that the table names.
  private func nextPart(atMost limit: Int) throws(Failure) -> (address: UInt64, count: Int) {
    if state.region.map({ $0.count == 0 }) ?? true { state.region = try nextRegion() }
    guard let region = state.region else { throw .tableTooShort }
    let count = min(region.count, limit)
    state.region?.address &+= UInt64(count)
    state.region?.count -= count
    return (region.address, count)
  }

  private func nextRegion() throws(Failure) -> Region {
    guard state.region?.isLast != true else { throw .tableTooShort }
    guard mayMaster() else { throw .notMemory }
    guard let entry = read(8, at: state.nextDescriptor) else { throw .notMemory }
    state.nextDescriptor = (state.nextDescriptor &+ 8) & 0xFFFF_FFFF
    func word(_ at: Int) -> UInt32 {
      UInt32(entry[at]) | UInt32(entry[at + 1]) << 8 | UInt32(entry[at + 2]) << 16
        | UInt32(entry[at + 3]) << 24
    }
    let size = Int(word(4) & 0xFFFE)
    return Region(
      address: UInt64(word(0) & ~1), count: size == 0 ? 0x1_0000 : size,
      isLast: word(4) & 0x8000_0000 != 0)
  }
}
