import DeviceModel
import Devices
import KVM

/// The port and memory buses of the board, and the one memory slot that moves:
/// video memory behind its base address register. Owned by the device lock.
final class AddressSpace: PCIAddressSpace {
  let ports = Bus(name: "port I/O")
  let memory = Bus(name: "MMIO")
  private let layout: MemoryLayoutMap
  private let kvm: KVMMachine
  private let reserved: [Range<UInt64>]

  private var video: (any SharedBytes)?
  /// Where KVM has video memory at present. It stays there while the function
  /// decodes nothing, because moving a slot takes milliseconds; whoever else
  /// wants the place moves it out.
  private var videoSlot: UInt64?
  /// A slot went, and with it what its dirty log had not told yet.
  private var logWasLost = false
  /// Where the function decodes video memory.
  private var videoDecoded: UInt64?
  /// Told where registers in memory appeared; `nil` when they went.
  var onRegisters: ((any BusTarget, UInt64?) -> Void)?

  init(layout: MemoryLayoutMap, kvm: KVMMachine) {
    self.layout = layout
    self.kvm = kvm
    reserved = [
      0..<max(layout.low, PhysicalMap.shadowEnd),
      // IOAPIC, LAPIC, KVM's own pages and the firmware ROM.
      PhysicalMap.pciEnd..<PhysicalMap.fourGiB,
      PhysicalMap.fourGiB..<PhysicalMap.fourGiB + layout.high,
    ]
  }

  /// Places video memory before anything else exists, which is when it is cheap.
  func place(_ video: any SharedBytes, at address: UInt64) throws(KVMError) {
    self.video = video
    try move(to: address)
  }

  /// Pages of video memory that vCPUs wrote since the last call.
  func takeDirtyVideoMemory(into pages: inout DirtyPages) throws(KVMError) {
    defer {
      if logWasLost { pages = DirtyPages(pageCount: pages.words.count * 64, allDirty: true) }
      logWasLost = false
    }
    guard videoSlot != nil else { return }
    try kvm.takeDirtyLog(slot: MachineMemory.Slot.video.rawValue, into: &pages.words)
  }

  /// Video memory at `address`, in one piece, for a processor whose writes the host
  /// carries out; `nil` where KVM has something else.
  ///
  /// - Parameter isWrite: the dirty log does not see it, so all pages count as dirty.
  func videoBytes(
    at address: UInt64, count: Int, isWrite: Bool
  ) -> UnsafeMutableRawBufferPointer? {
    guard let video, let videoSlot, address >= videoSlot, count >= 0 else { return nil }
    let offset = address - videoSlot
    guard offset <= UInt64(video.bytes.count), count <= video.bytes.count - Int(offset) else {
      return nil
    }
    if isWrite { logWasLost = true }
    // SAFETY: the range was checked to lie in video memory.
    return UnsafeMutableRawBufferPointer(rebasing: video.bytes[Int(offset)..<Int(offset) + count])
  }

  private func move(to address: UInt64?) throws(KVMError) {
    guard let video, address != videoSlot else { return }
    if videoSlot != nil {
      try kvm.removeMemory(slot: MachineMemory.Slot.video.rawValue)
      videoSlot = nil
      logWasLost = true
    }
    if let address {
      try kvm.setMemory(
        slot: MachineMemory.Slot.video.rawValue, at: address, video.bytes, .logDirtyPages)
      videoSlot = address
    }
  }

  func map(_ region: PCIRegion, at address: UInt64) -> Bool {
    do {
      switch region.backing {
      case .io(let target):
        try ports.map(target, name: region.name, at: address, size: region.size)
      case .memory(let target):
        guard isFree(address, region.size) else { return false }
        try memory.map(target, name: region.name, at: address, size: region.size)
        if overlapsVideoSlot(address, region.size) { try move(to: nil) }
        onRegisters?(target, address)
      case .videoMemory:
        guard isFree(address, region.size) else { return false }
        // An empty mapping on the bus keeps other regions away.
        try memory.map(NothingBehindMemory(), name: region.name, at: address, size: region.size)
        do {
          try move(to: address)
        } catch {
          try memory.unmap(at: address)
          return false
        }
        videoDecoded = address
      }
      return true
    } catch {
      return false
    }
  }

  func unmap(_ region: PCIRegion, at address: UInt64) {
    switch region.backing {
    case .io: try? ports.unmap(at: address)
    case .memory(let target):
      onRegisters?(target, nil)
      try? memory.unmap(at: address)
    case .videoMemory:
      try? memory.unmap(at: address)
      videoDecoded = nil
    }
  }

  private func isFree(_ address: UInt64, _ size: UInt64) -> Bool {
    let (end, wraps) = address.addingReportingOverflow(size)
    return !wraps && !reserved.contains { $0.overlaps(address..<end) }
      && !decodedVideo(overlaps: address..<end)
  }

  private func decodedVideo(overlaps range: Range<UInt64>) -> Bool {
    guard let videoDecoded, let video else { return false }
    return range.overlaps(videoDecoded..<videoDecoded + UInt64(video.bytes.count))
  }

  private func overlapsVideoSlot(_ address: UInt64, _ size: UInt64) -> Bool {
    guard let videoSlot, let video else { return false }
    return (address..<address + size).overlaps(videoSlot..<videoSlot + UInt64(video.bytes.count))
  }
}

/// Stands on the bus where a memory slot answers first.
private final class NothingBehindMemory: BusTarget {
  let maximumAccessWidth = 8

  func read(offset: UInt64, width: Int) -> UInt64 { .max }
  func write(offset: UInt64, width: Int, value: UInt64) {}
}
