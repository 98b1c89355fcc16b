import DeviceModel
import Devices
import KVM
import LinuxSystem
import Snapshot

/// A whole machine at one instant: devices, vCPUs, interrupt controllers, and the
/// contents of RAM and video memory, copied or in a snapshot's files.
public struct SavedMachine: Sendable {
  /// What the machine's memories held.
  enum Contents: Sendable {
    case copies([String: SharedMemory])
    case snapshot(SnapshotChain)
    case template([String: TemplateMemory])
  }

  /// One section to a device, and `kernel` for KVM's part.
  public let devices: StateArchive
  let contents: Contents
  public let livedNanoseconds: UInt64
  /// Pages of RAM that the machine needs first.
  public var workingSet: DirtyPages?
  /// What a snapshot says of its machine.
  private(set) var description: MachineDescription?

  init(devices: StateArchive, contents: Contents, livedNanoseconds: UInt64) {
    self.devices = devices
    self.contents = contents
    self.livedNanoseconds = livedNanoseconds
  }

  /// A machine in a snapshot's files, which must stay as they are while it is used. Only
  /// `verify` of the chain tells whether its pages are sound.
  public init(_ chain: SnapshotChain) throws {
    func section(_ name: String) throws(MachineError) -> [UInt8] {
      guard let bytes = chain.newest.section(name) else {
        throw MachineError(
          .state, "snapshot \(chain.newest.path) is not of a machine: it has no section '\(name)'")
      }
      return bytes
    }
    let lived = LittleEndian.number(try section("lived"), at: 0, UInt64.self)
    self.init(
      devices: try StateArchive(bytes: try section("devices")), contents: .snapshot(chain),
      livedNanoseconds: lived)
    description = try StateDecoder().decode(
      MachineDescription.self, from: try section("machine"))
  }

  /// The copy of RAM.
  ///
  /// - Throws: kind `state` for a machine that is in a snapshot.
  package func copiedMemory() throws(MachineError) -> SharedMemory {
    guard case .copies(let copies) = contents, let memory = copies[GuestRAM.sectionName] else {
      throw MachineError(.state, "the machine's memory is in a snapshot, not copied")
    }
    return memory
  }

  /// The same machine with its memories in `template`.
  func with(_ template: [String: TemplateMemory]) -> SavedMachine {
    var machine = SavedMachine(
      devices: devices, contents: .template(template), livedNanoseconds: livedNanoseconds)
    machine.description = description
    return machine
  }

  /// Bytes of each disk, in their order; `nil` where it does not say.
  var diskSizes: [UInt64]? { description?.disks.map(\.size) }

  /// Where RAM is that a machine has a view of, rather than a copy.
  var storedMemory: StoredMemory? {
    switch contents {
    case .copies: nil
    case .snapshot(let chain): .snapshot(chain)
    case .template(let memories): memories[GuestRAM.sectionName].map { .template($0) }
    }
  }

  /// Bytes of the memory of that name; `nil` when it had none.
  func size(of name: String) -> Int? {
    switch contents {
    case .copies(let copies): copies[name]?.size
    case .snapshot(let chain): chain.newest.memory(name)?.size
    case .template(let memories): memories[name]?.size
    }
  }
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
    let archive = try saveAllButMemory()
    var copies = [GuestRAM.sectionName: try copy(memory.ram)]
    for (name, memory, ranges) in pictureMemories { copies[name] = try copy(memory, ranges) }
    return SavedMachine(
      devices: archive.archive, contents: .copies(copies), livedNanoseconds: clock.now)
  }

  func saveAllButMemory() throws -> BoardArchive {
    drainCoalescedWrites()
    var archive = try saveDevices()
    var states: [VirtualCPU.State] = []
    for cpu in cpus { states.append(try cpu.saveState()) }
    try archive.store(KernelState(devices: try kvm.saveState(), cpus: states), as: "kernel")
    return archive
  }

  /// Video memory and the graphics card's, and what of them is in use.
  var pictureMemories: [(name: String, memory: MappedMemory, ranges: [Range<Int>])] {
    var memories: [(String, MappedMemory, [Range<Int>])] = []
    if let videoMemory { memories.append(("video", videoMemory, [0..<videoMemory.bytes.count])) }
    if let graphicsMemory {
      memories.append(("graphics", graphicsMemory, graphics?.usedMemory ?? []))
    }
    return memories
  }

  /// - Parameter ranges: what of it is copied; `nil` for all.
  private func copy(
    _ memory: some SharedBytes, _ ranges: [Range<Int>]? = nil
  ) throws -> SharedMemory {
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
    _ target: some SharedBytes, _ name: String, from saved: SavedMachine,
    _ ranges: [Range<Int>]? = nil
  ) throws {
    switch saved.contents {
    case .copies(let copies):
      guard let source = copies[name] else { return }
      try source.map(writable: false).withBytes { bytes in
        for range in ranges ?? [0..<target.bytes.count] {
          // SAFETY: ranges lie within the memory, and the source is as large.
          UnsafeMutableRawBufferPointer(rebasing: target.bytes[range])
            .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[range]))
        }
      }
    case .snapshot(let chain):
      for part in chain.parts(of: name) ?? [] {
        let range = part.pages.lowerBound * 4096..<part.pages.upperBound * 4096
        // SAFETY: parts lie within the memory, whose size was compared.
        _ = try part.file.descriptor.read(
          into: UnsafeMutableRawBufferPointer(rebasing: target.bytes[range]), offset: part.offset)
      }
    case .template(let memories):
      // Video memory was filled with the machine's core.
      guard let target = target as? MappedMemory, target !== videoMemory else { return }
      try memories[name]?.copy(to: target)
    }
  }

  /// Fills memory of a board that was built from the state of the same machine.
  func fillMemory(from saved: SavedMachine) throws {
    if let difference = saved.description?.difference(from: description) {
      throw MachineError(
        .state, "this machine is not the one that was saved: \(difference)",
        remedy: "configure it as it was")
    }
    guard saved.size(of: GuestRAM.sectionName) == memory.ram.bytes.count,
      saved.size(of: "video") == videoMemory?.bytes.count,
      saved.size(of: "graphics") == graphicsMemory?.bytes.count
    else {
      throw MachineError(
        .state, "the saved machine has memory of another size", remedy: "configure it as it was")
    }
    // RAM that is stored somewhere is mapped already.
    if saved.storedMemory == nil { try fill(memory.ram, GuestRAM.sectionName, from: saved) }
    for (name, memory, ranges) in pictureMemories {
      try fill(memory, name, from: saved, ranges)
    }
  }

  /// Gives the kernel its part, and has devices go on, after they were built from their
  /// states, which has moved interrupt lines, and memory was filled. Time begins with it: that
  /// of the kernel's clocks does not stand.
  func goOn(
    from saved: SavedMachine, _ archive: BoardArchive, as identity: RestoredIdentity
  ) throws {
    try restoreKernelState(from: archive)
    becomeAnother(identity)
    if let first = saved.workingSet { memory.ram.populate(first) }
    virtio.resume()
    usb?.controller.resume()
  }

  func restoreKernelState(from archive: BoardArchive) throws {
    guard let kernel: KernelState = try archive.state("kernel"), kernel.cpus.count == cpus.count
    else {
      throw MachineError(
        .state, "the saved machine has another number of CPUs; configure it as it was")
    }
    try kvm.restore(kernel.devices)
    for (cpu, state) in zip(cpus, kernel.cpus) { try cpu.restore(state) }
  }
}
