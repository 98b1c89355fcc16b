import DeviceModel
import KVM
import LinuxSystem

/// A memfd and its mapping in this process.
final class MappedMemory: SharedBytes {
  let shared: SharedMemory
  private let mapping: MemoryMapping

  init(name: String, size: Int) throws(MachineError) {
    do {
      shared = try SharedMemory(name: name, size: size)
      mapping = try shared.map()
    } catch {
      throw MachineError(
        .host, "the host gave no \(size >> 20) MiB of memory for \(name); give the guest less",
        cause: error)
    }
  }

  var bytes: UnsafeMutableRawBufferPointer { mapping.bytes }

  /// How much of it the host holds at present.
  var hostBytes: UInt64 { shared.descriptor.storedBytes }

  /// Lets go of a range, which reads as zeros then.
  func release(_ range: Range<Int>) {
    // Where a host cannot, the range stays as it is, and nobody counts on its contents.
    _ = try? shared.descriptor.clear(
      .punchHole, offset: UInt64(range.lowerBound), count: UInt64(range.count))
  }

  /// Something that tells of writes through this mapping, the guest's included.
  func makeWriteWatch() throws(SystemError) -> WriteWatch { try WriteWatch(mapping) }
}

/// The machine's RAM, its memory slots, and bus masters' access to it.
///
/// RAM is not dirty-logged: whoever saves it copies all of it while the vCPUs
/// are parked.
final class MachineMemory: GuestMemory {
  enum Slot: UInt32 {
    case conventional = 0
    case low = 1
    case high = 2
    case rom = 3
    case video = 4
    case variables = 5
  }

  let ram: MappedMemory
  let layout: MemoryLayoutMap
  private let kvm: KVMMachine
  private var rom: MemoryMapping?

  init(size: UInt64, kvm: KVMMachine) throws {
    self.kvm = kvm
    layout = MemoryLayoutMap(size: size)
    ram = try MappedMemory(name: "carrel-ram", size: Int(clamping: size))
    let low = Int(layout.low)
    try map(.conventional, at: 0, 0..<Int(PhysicalMap.conventionalEnd))
    let shadow = Int(PhysicalMap.shadowStart)
    if low > shadow { try map(.low, at: PhysicalMap.shadowStart, shadow..<low) }
    if layout.high > 0 { try map(.high, at: PhysicalMap.fourGiB, low..<ram.bytes.count) }
  }

  private func map(_ slot: Slot, at address: UInt64, _ range: Range<Int>) throws {
    try kvm.setMemory(slot: slot.rawValue, at: address, slice(range))
  }

  private func slice(_ range: Range<Int>) -> UnsafeMutableRawBufferPointer {
    // SAFETY: callers checked the range against the layout, which covers the mapping.
    UnsafeMutableRawBufferPointer(rebasing: ram.bytes[range])
  }

  /// Makes `image` readable so that it ends at 4 GiB.
  func mapROM(_ image: [UInt8]) throws {
    let size = (image.count + 4095) & ~4095
    let memory = try MemoryMapping(anonymous: size)
    // SAFETY: the mapping is at least as large as the image; rebased to its end.
    UnsafeMutableRawBufferPointer(rebasing: memory.bytes[(size - image.count)...])
      .copyBytes(from: image)
    try kvm.setMemory(
      slot: Slot.rom.rawValue, at: PhysicalMap.fourGiB - UInt64(size), memory.bytes, .readOnly)
    rom = memory
  }

  /// Shows a flash chip's array at `address` to processors, which cannot write it, or
  /// takes it away, so that reads leave the guest too.
  func setFlash(_ bytes: UnsafeMutableRawBufferPointer?, at address: UInt64) throws(KVMError) {
    if let bytes {
      try kvm.setMemory(slot: Slot.variables.rawValue, at: address, bytes, .readOnly)
    } else {
      try kvm.removeMemory(slot: Slot.variables.rawValue)
    }
  }

  /// The ROM below 4 GiB at `address`; `nil` unless all of it is there.
  func romBytes(at address: UInt64, count: Int) -> UnsafeMutableRawBufferPointer? {
    guard let rom, count >= 0, address < PhysicalMap.fourGiB else { return nil }
    let size = rom.bytes.count
    let toEnd = PhysicalMap.fourGiB - address
    guard toEnd <= UInt64(size), UInt64(count) <= toEnd else { return nil }
    let start = size - Int(toEnd)
    // SAFETY: the range was checked to lie in the mapping.
    return UnsafeMutableRawBufferPointer(rebasing: rom.bytes[start..<start + count])
  }

  /// Guest-physical RAM at `address`; `nil` unless it is RAM in one piece.
  func bytes(at address: UInt64, count: Int) -> UnsafeMutableRawBufferPointer? {
    layout.offset(of: address, count: count).map { slice($0..<$0 + count) }
  }

  func read(at address: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(GuestMemoryError)
  {
    guard let source = bytes(at: address, count: buffer.count) else {
      throw GuestMemoryError(address: address, count: buffer.count)
    }
    buffer.copyWhole(from: UnsafeRawBufferPointer(source))
  }

  func write(at address: UInt64, from buffer: UnsafeRawBufferPointer) throws(GuestMemoryError) {
    guard let target = bytes(at: address, count: buffer.count) else {
      throw GuestMemoryError(address: address, count: buffer.count)
    }
    target.copyWhole(from: buffer)
  }

  func overwrite<Result>(
    at address: UInt64, count: Int, _ body: (UnsafeMutableRawBufferPointer) -> Result
  ) throws(GuestMemoryError) -> Result {
    guard let target = bytes(at: address, count: count) else {
      throw GuestMemoryError(address: address, count: count)
    }
    return body(target)
  }

  func inPlace(
    _ ranges: [(address: UInt64, count: Int)]
  ) throws(GuestMemoryError) -> GuestBytes {
    var pieces: [UnsafeRawBufferPointer] = []
    for range in ranges {
      guard let piece = bytes(at: range.address, count: range.count) else {
        throw GuestMemoryError(address: range.address, count: range.count)
      }
      pieces.append(UnsafeRawBufferPointer(piece))
    }
    return GuestBytes(pieces: pieces, owner: ram)
  }

  func release(at address: UInt64, count: Int) throws(GuestMemoryError) {
    guard let offset = layout.offset(of: address, count: count) else {
      throw GuestMemoryError(address: address, count: count)
    }
    let (first, end) = ((offset + 4095) & ~4095, (offset + count) & ~4095)
    if first < end { ram.release(first..<end) }
  }

  func contains(_ address: UInt64, count: Int) -> Bool {
    layout.offset(of: address, count: count) != nil
  }

  func write(_ bytes: [UInt8], at address: UInt64) throws(GuestMemoryError) {
    guard let target = self.bytes(at: address, count: bytes.count) else {
      throw GuestMemoryError(address: address, count: bytes.count)
    }
    target.copyBytes(from: bytes)
  }
}
