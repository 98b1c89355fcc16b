import DeviceModel
import KVM
import LinuxSystem
import Snapshot

/// The machine's RAM, its memory slots, and bus masters' access to it.
///
/// Which pages change is not known before somebody asks for it (`trackWrites`).
final class MachineMemory: GuestMemory, BootMemory {
  enum Slot: UInt32 {
    case conventional = 0
    case low = 1
    case high = 2
    case rom = 3
    case video = 4
    case variables = 5
  }

  let ram: GuestRAM
  let layout: MemoryLayoutMap
  private let kvm: KVMMachine
  private var rom: MemoryMapping?
  /// Pages that this process wrote; `nil` while nobody wants to know.
  private var written: DirtyPages?

  /// - Parameter stored: a snapshot whose RAM this one begins with.
  init(size: UInt64, kvm: KVMMachine, stored: StoredMemory? = nil) throws {
    self.kvm = kvm
    layout = MemoryLayoutMap(size: size)
    ram = try GuestRAM(size: Int(clamping: size), stored: stored)
    try mapRAM([])
  }

  /// RAM's slots: where each is in guest-physical space, and in the mapping.
  private var ramSlots: [(slot: Slot, address: UInt64, range: Range<Int>)] {
    let (low, shadow) = (Int(layout.low), Int(PhysicalMap.shadowStart))
    var slots: [(Slot, UInt64, Range<Int>)] = [
      (.conventional, 0, 0..<Int(PhysicalMap.conventionalEnd))
    ]
    if low > shadow { slots.append((.low, PhysicalMap.shadowStart, shadow..<low)) }
    if layout.high > 0 { slots.append((.high, PhysicalMap.fourGiB, low..<ram.bytes.count)) }
    return slots
  }

  private func mapRAM(_ flags: KVMMachine.MemoryFlags) throws(KVMError) {
    for (slot, address, range) in ramSlots {
      try kvm.setMemory(slot: slot.rawValue, at: address, slice(range), flags)
    }
  }

  // MARK: Writes to RAM

  /// Has every write to RAM noted from now on, the guest's by KVM's dirty log.
  func trackWrites() throws(KVMError) {
    guard written == nil else { return }
    try mapRAM(.logDirtyPages)
    written = DirtyPages(pageCount: ram.bytes.count / DirtyPages.pageSize)
  }

  /// Adds the pages that were written since the last call, or since `trackWrites`.
  func takeWritten(into pages: inout DirtyPages) throws(KVMError) {
    if let written {
      pages.formUnion(written)
      self.written = DirtyPages(pageCount: ram.bytes.count / DirtyPages.pageSize)
    }
    for (slot, _, range) in ramSlots {
      // Slots begin at multiples of 64 pages in the mapping.
      let first = range.lowerBound / DirtyPages.pageSize / 64
      var words = [UInt64](repeating: 0, count: (range.count / DirtyPages.pageSize + 63) / 64)
      try kvm.takeDirtyLog(slot: slot.rawValue, into: &words)
      for (index, word) in words.enumerated() { pages.words[first + index] |= word }
    }
  }

  /// A range of RAM that this process writes, or lets go of.
  private func note(_ address: UInt64, _ count: Int) {
    guard written != nil, let offset = layout.offset(of: address, count: count) else { return }
    written?.insert(bytes: offset..<offset + count)
  }

  private func slice(_ range: Range<Int>) -> UnsafeMutableRawBufferPointer {
    // SAFETY: callers checked the range against the layout, which covers the mapping.
    UnsafeMutableRawBufferPointer(rebasing: ram.bytes[range])
  }

  /// `image` in whole pages, at their end.
  static func makeROM(_ image: [UInt8]) throws(SystemError) -> MemoryMapping {
    let size = (image.count + 4095) & ~4095
    let memory = try MemoryMapping(anonymous: size)
    // SAFETY: the mapping is at least as large as the image; rebased to its end.
    UnsafeMutableRawBufferPointer(rebasing: memory.bytes[(size - image.count)...])
      .copyBytes(from: image)
    return memory
  }

  /// Makes `memory` readable so that it ends at 4 GiB.
  func mapROM(_ memory: MemoryMapping) throws(KVMError) {
    try kvm.setMemory(
      slot: Slot.rom.rawValue, at: PhysicalMap.fourGiB - UInt64(memory.bytes.count),
      memory.bytes, .readOnly)
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

  /// Guest-physical RAM at `address`, to be written; `nil` unless it is RAM in one piece.
  func bytes(at address: UInt64, count: Int) -> UnsafeMutableRawBufferPointer? {
    note(address, count)
    return readableBytes(at: address, count: count)
  }

  /// The same, not to be written.
  func readableBytes(at address: UInt64, count: Int) -> UnsafeMutableRawBufferPointer? {
    layout.offset(of: address, count: count).map { slice($0..<$0 + count) }
  }

  func read(at address: UInt64, into buffer: UnsafeMutableRawBufferPointer)
    throws(GuestMemoryError)
  {
    guard let source = readableBytes(at: address, count: buffer.count) else {
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

  func space(
    _ ranges: [(address: UInt64, count: Int)]
  ) throws(GuestMemoryError) -> GuestSpace {
    GuestSpace(pieces: try pieces(ranges), ranges: ranges, owner: ram)
  }

  func wrote(_ space: GuestSpace) {
    for range in space.ranges { note(range.address, range.count) }
  }

  func inPlace(
    _ ranges: [(address: UInt64, count: Int)]
  ) throws(GuestMemoryError) -> GuestBytes {
    GuestBytes(pieces: try pieces(ranges).map { UnsafeRawBufferPointer($0) }, owner: ram)
  }

  private func pieces(
    _ ranges: [(address: UInt64, count: Int)]
  ) throws(GuestMemoryError) -> [UnsafeMutableRawBufferPointer] {
    var pieces: [UnsafeMutableRawBufferPointer] = []
    for range in ranges {
      guard let piece = readableBytes(at: range.address, count: range.count) else {
        throw GuestMemoryError(address: range.address, count: range.count)
      }
      pieces.append(piece)
    }
    return pieces
  }

  func release(at address: UInt64, count: Int) throws(GuestMemoryError) {
    guard let offset = layout.offset(of: address, count: count) else {
      throw GuestMemoryError(address: address, count: count)
    }
    note(address, count)
    let (first, end) = ((offset + 4095) & ~4095, (offset + count) & ~4095)
    if first < end { ram.release(first..<end) }
  }

  func contains(_ address: UInt64, count: Int) -> Bool {
    layout.offset(of: address, count: count) != nil
  }
}
