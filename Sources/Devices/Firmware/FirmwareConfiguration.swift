import DeviceModel

/// QEMU's firmware configuration device (docs/specs/fw_cfg): twelve ports, at
/// 0x510 on a PC. A selector at 0, a data byte at 1, a 64-bit big-endian DMA
/// address at 4 whose low half starts the transfer.
///
/// Guests reach only what was given to `init`; a descriptor that points outside RAM,
/// asks for nothing possible or is absurdly long ends in the error bit.
///
/// A file that is read again is so when the guest selects it or the directory, never
/// between: what a guest reads after selecting is of one piece. A size that it took
/// from the directory earlier may be out of date; past the end it reads zeros.
package final class FirmwareConfiguration: BusTarget, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    package var selector: UInt16
    package var offset: Int
    package var dmaAddress: UInt64
    /// Contents of the files that are not fixed, by name.
    package var written: [String: [UInt8]]
  }

  /// DMA control bits (specification, "Guest-side DMA interface").
  private enum Control {
    static let error: UInt32 = 1 << 0
    static let read: UInt32 = 1 << 1
    static let skip: UInt32 = 1 << 2
    static let select: UInt32 = 1 << 3
    static let write: UInt32 = 1 << 4
  }

  private static let dmaSignature: UInt64 = 0x5145_4D55_2043_4647  // "QEMU CFG"
  private static let chunk = 1 << 16

  package let maximumAccessWidth = 4
  /// Called after the guest wrote to a writable file, with its name.
  package var onWrite: ((String) -> Void)?

  private let memory: any GuestMemory
  private var source: (any FirmwareFileSource)?
  private var contents: FirmwareContents.Assembly
  private var selector: UInt16 = 0
  private var offset = 0
  private var dmaAddress: UInt64 = 0

  package init(
    contents: FirmwareContents, memory: any GuestMemory,
    source: (any FirmwareFileSource)? = nil, state: State?
  ) {
    self.memory = memory
    self.source = source
    self.contents = contents.assemble()
    guard let state else { return }
    selector = state.selector
    offset = max(0, state.offset)
    dmaAddress = state.dmaAddress
    for (key, name) in self.contents.writable {
      guard let bytes = state.written[name], bytes.count == self.contents.items[key]?.count
      else { continue }
      self.contents.items[key] = bytes
    }
    for (key, name) in self.contents.reread {
      if let bytes = state.written[name] { self.contents.replace(key, with: bytes) }
    }
  }

  package func saveState() -> State {
    var written: [String: [UInt8]] = [:]
    for (key, name) in contents.writable { written[name] = contents.items[key] }
    for (key, name) in contents.reread { written[name] = contents.items[key] }
    return State(selector: selector, offset: offset, dmaAddress: dmaAddress, written: written)
  }

  package func reset() {
    selector = 0
    offset = 0
    dmaAddress = 0
  }

  /// The present contents of a file, for whoever watches `onWrite`.
  package func contents(of name: String) -> [UInt8]? {
    contents.writable.first { $0.value == name }.flatMap { contents.items[$0.key] }
  }

  /// Gives items and files that are there other contents, and says where files are read
  /// again from now on.
  package func renew(_ changes: FirmwareContents, source: any FirmwareFileSource) {
    self.source = source
    contents.renew(changes)
  }

  // MARK: Ports

  package func read(offset port: UInt64, width: Int) -> UInt64 {
    var value: UInt64 = 0
    for index in 0..<width {
      let at = port &+ UInt64(index)
      let byte: UInt8
      switch at {
      case 0, 1: byte = nextByte()
      case 4..<12: byte = UInt8(truncatingIfNeeded: Self.dmaSignature >> ((11 - at) * 8))
      default: byte = 0
      }
      value |= UInt64(byte) << UInt64(index * 8)
    }
    return value
  }

  package func write(offset port: UInt64, width: Int, value: UInt64) {
    switch (port, width) {
    case (0, 2): select(UInt16(truncatingIfNeeded: value))
    case (4, 4): dmaAddress = UInt64(UInt32(truncatingIfNeeded: value).byteSwapped) << 32
    case (8, 4):
      let address = dmaAddress | UInt64(UInt32(truncatingIfNeeded: value).byteSwapped)
      dmaAddress = 0
      transfer(descriptor: address)
    default: break
    }
  }

  private func select(_ key: UInt16) {
    // Bit 14 once asked for writes through the data port; it selects nothing.
    selector = key & 0xBFFF
    offset = 0
    if selector == FirmwareContents.Key.fileDirectory {
      for key in contents.reread.keys { readAgain(key) }
    } else {
      readAgain(selector)
    }
  }

  private func readAgain(_ key: UInt16) {
    guard let source, let name = contents.reread[key],
      let bytes = source.contents(ofFirmwareFile: name),
      bytes.count <= FirmwareContents.maximumRereadSize, bytes != contents.items[key]
    else { return }
    contents.replace(key, with: bytes)
  }

  private func nextByte() -> UInt8 {
    guard let item = contents.items[selector], offset < item.count else { return 0 }
    defer { offset += 1 }
    return item[offset]
  }

  // MARK: DMA

  private func transfer(descriptor address: UInt64) {
    var descriptor = [UInt8](repeating: 0, count: 16)
    guard move(from: address, into: &descriptor) else { return }
    let control = bigEndian(descriptor[0..<4])
    let length = bigEndian(descriptor[4..<8])
    let target = bigEndian(descriptor[8..<16])
    let succeeded = perform(UInt32(control), length: Int(length), target: target)
    // The driver waits for the whole control field to become 0, or the error bit.
    _ = move(succeeded ? [0, 0, 0, 0] : [0, 0, 0, UInt8(Control.error)], to: address)
  }

  private func perform(_ control: UInt32, length: Int, target: UInt64) -> Bool {
    if control & Control.select != 0 { select(UInt16(control >> 16)) }
    guard !target.addingReportingOverflow(UInt64(length)).overflow else { return false }
    if control & Control.read != 0 { return readItem(length, to: target) }
    if control & Control.write != 0 { return writeItem(length, from: target) }
    if control & Control.skip != 0 { offset = min(offset + length, Int(Int32.max)) }
    return true
  }

  /// Past the end of an item there are zeros, as through the data port.
  private func readItem(_ length: Int, to target: UInt64) -> Bool {
    var done = 0
    while done < length {
      let count = min(length - done, Self.chunk)
      var bytes = [UInt8](repeating: 0, count: count)
      if let item = contents.items[selector], offset < item.count {
        let available = min(count, item.count - offset)
        bytes.replaceSubrange(0..<available, with: item[offset..<offset + available])
        offset += available
      }
      guard move(bytes, to: target + UInt64(done)) else { return false }
      done += count
    }
    return true
  }

  private func writeItem(_ length: Int, from target: UInt64) -> Bool {
    guard let name = contents.writable[selector], let item = contents.items[selector],
      offset <= item.count, length <= item.count - offset
    else { return false }
    var bytes = [UInt8](repeating: 0, count: length)
    guard move(from: target, into: &bytes) else { return false }
    contents.items[selector]?.replaceSubrange(offset..<offset + length, with: bytes)
    offset += length
    onWrite?(name)
    return true
  }

  // MARK: Memory

  private func move(from address: UInt64, into bytes: inout [UInt8]) -> Bool {
    // SAFETY: the pointer covers `bytes` and does not leave the closure.
    let result = bytes.withUnsafeMutableBytes { buffer in
      Result { () throws(GuestMemoryError) in try memory.read(at: address, into: buffer) }
    }
    if case .success = result { return true }
    return false
  }

  private func move(_ bytes: [UInt8], to address: UInt64) -> Bool {
    // SAFETY: the pointer covers `bytes` and does not leave the closure.
    let result = bytes.withUnsafeBytes { buffer in
      Result { () throws(GuestMemoryError) in try memory.write(at: address, from: buffer) }
    }
    if case .success = result { return true }
    return false
  }

  private func bigEndian(_ bytes: ArraySlice<UInt8>) -> UInt64 {
    bytes.reduce(0) { $0 << 8 | UInt64($1) }
  }
}
