import DeviceModel

/// Where the bytes of a flash chip are, and how processors come to read them.
package protocol FlashArray: AnyObject {
  var bytes: UnsafeMutableRawBufferPointer { get }

  /// Whether reads get the bytes; otherwise they ask the chip.
  func setReadsArray(_ on: Bool)

  /// The guest changed these bytes.
  func changed(_ range: Range<Int>)
}

/// A NOR flash chip of 8 bits with Intel's command set, as UEFI keeps its variables in
/// (JESD68, common flash interface; Intel StrataFlash datasheet).
///
/// Programming clears bits, erasing a block of 4 KiB sets them. As on QEMU's chip, and
/// unlike the datasheet's, clearing the status clears its ready bit too: UEFI's driver
/// tells flash from ROM and RAM by a status of 0.
package final class FlashMemory: BusTarget, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    var mode: Mode
    var status: UInt8
    var buffer: BufferedProgram?
    var contents: [UInt8]
  }

  enum Mode: UInt8, Codable {
    case readArray, readStatus, readIdentifier, query
    case program, eraseSetup, lockSetup
    case bufferCount, bufferData, bufferConfirm
  }

  /// Write-to-buffer on its way.
  struct BufferedProgram: Codable, Sendable {
    var block: Int
    var remaining = 0
    var bytes: [Int: UInt8] = [:]
  }

  private enum Command {
    static let programAlternate: UInt8 = 0x10
    static let eraseSetup: UInt8 = 0x20
    static let program: UInt8 = 0x40
    static let clearStatus: UInt8 = 0x50
    static let lockSetup: UInt8 = 0x60
    static let readStatus: UInt8 = 0x70
    static let readIdentifier: UInt8 = 0x90
    static let query: UInt8 = 0x98
    static let confirm: UInt8 = 0xD0
    static let writeToBuffer: UInt8 = 0xE8
    static let readArray: UInt8 = 0xFF
  }

  private enum Status {
    static let programError: UInt8 = 0x10
    static let eraseError: UInt8 = 0x20
    static let ready: UInt8 = 0x80
  }

  package static let blockSize = 4096
  static let bufferSize = 32

  private let array: any FlashArray
  private var mode = Mode.readArray
  private var status: UInt8 = 0
  private var buffer: BufferedProgram?

  /// - Parameter array: a whole number of blocks. Left as it is without a saved state.
  package init(array: any FlashArray, state: State?) {
    self.array = array
    guard let state, state.contents.count == array.bytes.count else {
      array.setReadsArray(true)
      return
    }
    mode = state.mode
    status = state.status
    buffer = state.buffer
    if !array.bytes.elementsEqual(state.contents) {
      array.bytes.copyBytes(from: state.contents)
      array.changed(0..<array.bytes.count)
    }
    array.setReadsArray(mode == .readArray)
  }

  package func saveState() -> State {
    State(mode: mode, status: status, buffer: buffer, contents: Array(array.bytes))
  }

  package func reset() {
    status = 0
    buffer = nil
    enter(.readArray)
  }

  // MARK: Bus

  package func read(offset: UInt64, width: Int) -> UInt64 {
    guard offset < UInt64(array.bytes.count) else { return 0xFF }
    let place = Int(offset)
    return switch mode {
    case .readArray: UInt64(array.bytes[place])
    case .readIdentifier: UInt64(identifier(place & 0xFF))
    case .query: UInt64(queryByte(place & 0xFF))
    default: UInt64(status)
    }
  }

  package func write(offset: UInt64, width: Int, value: UInt64) {
    guard offset < UInt64(array.bytes.count) else { return }
    let (place, byte) = (Int(offset), UInt8(truncatingIfNeeded: value))
    switch mode {
    case .readArray, .readStatus, .readIdentifier, .query: command(byte, at: place)
    case .program:
      program([place: byte])
      enter(.readStatus)
    case .eraseSetup:
      if byte == Command.confirm { erase(block(of: place)) } else { fail() }
      enter(.readStatus)
    case .lockSetup:
      // Locking bits are taken and have no effect: nothing locks these blocks.
      status |= Status.ready
      enter(.readStatus)
    case .bufferCount, .bufferData, .bufferConfirm: buffered(byte, at: place)
    }
  }

  private func command(_ byte: UInt8, at place: Int) {
    switch byte {
    case Command.program, Command.programAlternate: enter(.program)
    case Command.eraseSetup: enter(.eraseSetup)
    case Command.lockSetup: enter(.lockSetup)
    case Command.readStatus: enter(.readStatus)
    case Command.readIdentifier: enter(.readIdentifier)
    case Command.query: enter(.query)
    case Command.writeToBuffer:
      status |= Status.ready
      buffer = BufferedProgram(block: block(of: place))
      enter(.bufferCount)
    case Command.clearStatus:
      status = 0
      enter(.readArray)
    default: enter(.readArray)
    }
  }

  private func enter(_ new: Mode) {
    guard new != mode else { return }
    let readArray = mode == .readArray
    mode = new
    if readArray != (new == .readArray) { array.setReadsArray(new == .readArray) }
  }

  // MARK: Changing bytes

  private func block(of place: Int) -> Int { place / Self.blockSize }

  private func fail() {
    status |= Status.ready | Status.programError | Status.eraseError
  }

  private func program(_ bytes: [Int: UInt8]) {
    for (place, byte) in bytes where array.bytes.indices.contains(place) {
      array.bytes[place] &= byte
    }
    if let first = bytes.keys.min(), let last = bytes.keys.max() {
      array.changed(first..<min(last + 1, array.bytes.count))
    }
    status |= Status.ready
  }

  private func erase(_ block: Int) {
    let start = block * Self.blockSize
    let range = start..<min(start + Self.blockSize, array.bytes.count)
    for place in range { array.bytes[place] = 0xFF }
    array.changed(range)
    status |= Status.ready
  }

  /// Write-to-buffer: a count less one, that many bytes of one block, and a confirmation.
  private func buffered(_ byte: UInt8, at place: Int) {
    guard var pending = buffer else { return enter(.readStatus) }
    buffer = nil
    switch mode {
    case .bufferCount where Int(byte) < Self.bufferSize:
      pending.remaining = Int(byte) + 1
      buffer = pending
      enter(.bufferData)
    case .bufferData where block(of: place) == pending.block:
      pending.bytes[place] = byte
      pending.remaining -= 1
      buffer = pending
      if pending.remaining == 0 { enter(.bufferConfirm) }
    case .bufferConfirm where byte == Command.confirm:
      program(pending.bytes)
      enter(.readStatus)
    default:
      fail()
      enter(.readStatus)
    }
  }

  // MARK: What the chip says of itself

  private func identifier(_ place: Int) -> UInt8 {
    switch place {
    case 0: 0x89  // Intel
    case 1: 0x18
    default: 0  // no block is locked
    }
  }

  /// JESD68.01, tables 2 to 4.
  private func queryByte(_ place: Int) -> UInt8 {
    let blocks = array.bytes.count / Self.blockSize
    let exponent = Int.bitWidth - 1 - max(1, array.bytes.count).leadingZeroBitCount
    let table: [Int: Int] = [
      0x10: 0x51, 0x11: 0x52, 0x12: 0x59,  // "QRY"
      0x13: 0x01,  // Intel's extended command set
      0x15: 0x31,
      0x1B: 0x45, 0x1C: 0x55,  // 4.5 V to 5.5 V
      0x1F: 7, 0x20: 7, 0x21: 10, 0x23: 4, 0x24: 4, 0x25: 4,  // times as powers of two
      0x27: exponent,
      0x2A: 5,  // buffer of 2^5 bytes
      0x2C: 1,  // one region of equal blocks
      0x2D: (blocks - 1) & 0xFF, 0x2E: (blocks - 1) >> 8,
      0x2F: Self.blockSize >> 8 & 0xFF, 0x30: Self.blockSize >> 16,
      0x31: 0x50, 0x32: 0x52, 0x33: 0x49, 0x34: 0x31, 0x35: 0x30,  // "PRI", version 1.0
    ]
    return UInt8(truncatingIfNeeded: table[place] ?? 0)
  }
}
