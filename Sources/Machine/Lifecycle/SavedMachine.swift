import DeviceModel
import KVM
import LinuxSystem
import Snapshot

/// A whole machine at one instant: devices, vCPUs, interrupt controllers, and the
/// contents of RAM and video memory, copied.
public struct SavedMachine: Sendable {
  /// One section to a device, and `kernel` for KVM's part.
  public let devices: StateArchive
  public let memory: SharedMemory
  public let videoMemory: SharedMemory?
  /// The graphics card's, where there are pictures in it.
  public let graphicsMemory: SharedMemory?
  public let livedNanoseconds: UInt64
}

/// KVM's part of a machine.
struct KernelState: Codable {
  var version = 1
  var devices: KVMMachine.State
  var cpus: [VirtualCPU.State]
}

extension Board {
  /// Device lock held, vCPUs parked.
  func save() throws -> SavedMachine {
    drainCoalescedWrites()
    var archive = try saveDevices()
    var states: [VirtualCPU.State] = []
    for cpu in cpus { states.append(try cpu.saveState()) }
    try archive.store(KernelState(devices: try kvm.saveState(), cpus: states), as: "kernel")
    return SavedMachine(
      devices: archive.archive, memory: try copy(memory.ram),
      videoMemory: try videoMemory.map { try copy($0) },
      graphicsMemory: try graphicsMemory.map { try copy($0, graphics?.usedMemory) },
      livedNanoseconds: clock.now)
  }

  /// - Parameter ranges: what of it is copied; `nil` for all.
  private func copy(_ memory: MappedMemory, _ ranges: [Range<Int>]? = nil) throws -> SharedMemory {
    let copy = try SharedMemory(name: "carrel-saved", size: memory.bytes.count)
    let target = try copy.map()
    for range in ranges ?? [0..<memory.bytes.count] {
      // SAFETY: ranges lie within the memory, and the copy is as large.
      UnsafeMutableRawBufferPointer(rebasing: target.bytes[range])
        .copyMemory(from: UnsafeRawBufferPointer(rebasing: memory.bytes[range]))
    }
    return copy
  }

  private func fill(
    _ target: MappedMemory, from source: SharedMemory, _ ranges: [Range<Int>]? = nil
  ) throws {
    try source.map(writable: false).withBytes { bytes in
      for range in ranges ?? [0..<target.bytes.count] {
        // SAFETY: ranges lie within the memory, and the source is as large.
        UnsafeMutableRawBufferPointer(rebasing: target.bytes[range])
          .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[range]))
      }
    }
  }

  /// Fills memory and gives the kernel its part, after the devices were built from
  /// theirs: building them has moved interrupt lines.
  func restoreKernelState(_ saved: SavedMachine) throws {
    guard saved.memory.size == memory.ram.bytes.count,
      saved.videoMemory?.size == videoMemory?.bytes.count,
      saved.graphicsMemory?.size == graphicsMemory?.bytes.count
    else {
      throw MachineError(
        .state, "the saved machine has memory of another size; configure it as it was")
    }
    try fill(memory.ram, from: saved.memory)
    if let source = saved.videoMemory, let target = videoMemory {
      try fill(target, from: source)
    }
    if let source = saved.graphicsMemory, let target = graphicsMemory {
      try fill(target, from: source, graphics?.usedMemory)
    }
    let archive = BoardArchive(saved.devices)
    guard let kernel: KernelState = try archive.state("kernel"), kernel.cpus.count == cpus.count
    else {
      throw MachineError(
        .state, "the saved machine has another number of CPUs; configure it as it was")
    }
    try kvm.restore(kernel.devices)
    for (cpu, state) in zip(cpus, kernel.cpus) { try cpu.restore(state) }
    virtio.resume()
    usb?.controller.resume()
  }
}
