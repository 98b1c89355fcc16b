import DeviceModel
import Devices
import KVM
import LinuxSystem
import Snapshot

/// A saved machine of which many others go on, each as one of its own: everything that they
/// have in common, read, checked and decoded once.
///
/// It has no thread. A process that has none either makes machines by copying itself
/// (`ProcessFork`) and calling `prepare` in the copy.
public final class MachineTemplate {
  /// Of the template; clones differ in what makes them who they are.
  public let configuration: MachineConfiguration
  private let saved: SavedMachine
  private let memories: [String: TemplateMemory]
  private let host: HostOffer
  private let firmware: BoardFirmware
  /// With UEFI's variables, if there are any, in no file.
  private let boot: BootMedium
  /// The states of devices, decoded as far as could be.
  private let archive: BoardArchive
  /// Pages of RAM that a machine needs first, and those of them that it writes.
  private var workingSet: (touched: DirtyPages, written: DirtyPages)?

  /// - Parameter chain: a snapshot, every page of which was verified.
  /// - Throws: `MachineError`, `KVMError`, `SnapshotError`; kind `state` for a snapshot of a
  ///   machine that a user's session ran in.
  public init(_ configuration: MachineConfiguration, from chain: SnapshotChain) throws {
    try configuration.validate()
    guard chain.newest.section(Self.sessionSection) == nil else {
      throw MachineError(
        .state, "snapshot \(chain.newest.path) holds what a user did in a session",
        remedy: "make templates of machines that nobody logged in to")
    }
    self.configuration = configuration
    var memories: [String: TemplateMemory] = [:]
    for memory in chain.newest.memories {
      memories[memory.name] = try TemplateMemory(chain, memory.name)
    }
    self.memories = memories
    saved = try SavedMachine(chain).with(memories)
    boot = try BootMedium(configuration.withoutLinks)
    firmware = try BoardFirmware(configuration, boot)

    // One that is made for trial tells what KVM will tell every time.
    let system = try KVMSystem()
    let processor = try ProcessorModel.offered(by: system)
    let recorder = BoardArchive.Recorder()
    let recording = BoardArchive(saved.devices, recorder: recorder)
    let trial = try BoardCore(
      configuration, firmware, saved: recording, stored: saved.storedMemory)
    host = HostOffer(system: system, processor: processor, powerOn: trial.powerOn)
    Self.warmUp(configuration, trial, try boot.forAnother(), recording, saved)
    archive = recording.with(recorder)
  }

  /// Snapshots of machines that a user's session ran in have a section of this name.
  public static let sessionSection = "session"

  /// Builds a machine once, so that states of devices are decoded, and Swift's and the C
  /// library's own tables made.
  private static func warmUp(
    _ configuration: MachineConfiguration, _ core: BoardCore, _ boot: BootMedium,
    _ archive: BoardArchive, _ saved: SavedMachine
  ) {
    let lock = Lock()
    lock.withLock {
      // Where it fails, machines decode and make for themselves what it did not come to.
      let board = try? Board(
        configuration, lock: lock, boot: boot, core: core, saved: archive,
        livedNanoseconds: saved.livedNanoseconds, diskSizes: saved.diskSizes)
      board?.becomeAnother(.another)
    }
    _ = try? archive.state("kernel", KernelState.self)
  }

  /// Makes one more machine, of this process and none that is copied from it, as far as it
  /// can be without knowing which machine it will be.
  public func prepare() throws -> PreparedMachine {
    let core = try makeCore()
    if let set = workingSet { core.memory.ram.populate(set.touched, written: set.written) }
    guard let sizes = saved.diskSizes else {
      return PreparedMachine(template: self, stage: .core(core))
    }
    let machine = try Machine(
      configuration, boot: try boot.forAnother(), core: core, from: saved, archive, as: .same,
      diskSizes: sizes)
    return PreparedMachine(template: self, stage: .machine(machine))
  }

  private func makeCore() throws -> BoardCore {
    let core = try BoardCore(
      configuration, firmware, saved: archive, stored: saved.storedMemory, host: host)
    if let video = core.videoMemory { try memories["video"]?.copy(to: video) }
    return core
  }

  fileprivate func become(
    _ configuration: MachineConfiguration, as identity: RestoredIdentity,
    _ stage: PreparedMachine.Stage
  ) throws -> Machine {
    try configuration.validate()
    let core: BoardCore
    switch stage {
    case .machine(let machine):
      if self.configuration.isSameHardware(as: configuration) {
        try machine.become(configuration, from: saved, archive, as: identity)
        return machine
      }
      machine.tearDown()
      core = try makeCore()
    case .core(let prepared): core = prepared
    }
    let medium = try boot.forAnother()
    if case .uefi(let path?) = configuration.boot { try medium.variables?.keep(in: path) }
    return try Machine(
      configuration, boot: medium, core: core, from: saved, archive, as: identity)
  }

  /// Does with a machine what will be done with clones, and has its guest run for a moment:
  /// what Swift's runtime and the C library make when something is done first, copies of this
  /// process find made, and the pages that the guest needs first as well. The machine leads
  /// nowhere, and its threads are gone afterwards.
  ///
  /// - Parameter begin: has what belongs to a machine be there, and returns what ends both.
  public func rehearse(_ begin: (Machine) throws -> () -> Void) throws {
    guard case .machine(let machine) = try prepare().stage else { return }
    try machine.become(configuration.withoutLinks, from: saved, archive, as: .another)
    let end = try begin(machine)
    defer { end() }
    try machine.resume()
    _ = try Poller().wait(milliseconds: Self.rehearsalMilliseconds)
    try machine.pause()
    let ram = machine.board.memory.ram
    guard let touched = try ram.touchedOfSnapshot(), let written = try ram.writtenOfSnapshot()
    else { return }
    workingSet = (touched, written)
  }

  private static let rehearsalMilliseconds: Int32 = 100

  /// Sums over the bytes of its memories, by their names, which never change.
  public func checksums() throws -> [String: UInt64] {
    try memories.mapValues { try $0.checksum() }
  }
}

/// A machine of which all is made that does not depend on which one it is.
public struct PreparedMachine: ~Copyable {
  fileprivate enum Stage {
    case machine(Machine)
    /// Where the rest differs from machine to machine.
    case core(BoardCore)
  }

  fileprivate let template: MachineTemplate
  fileprivate let stage: Stage

  /// The clone, which waits where its template was saved.
  ///
  /// - Parameter configuration: the template's but for the machine's own: name, UUID, disks,
  ///   addresses, contents of firmware files, and what devices lead to.
  public consuming func become(
    _ configuration: MachineConfiguration, as identity: RestoredIdentity = .another
  ) throws -> Machine {
    try template.become(configuration, as: identity, stage)
  }
}

extension MachineConfiguration {
  /// Whether a machine of this make can be that one, too, without being built anew.
  fileprivate func isSameHardware(as other: MachineConfiguration) -> Bool {
    cdrom == other.cdrom && channels.map(\.name) == other.channels.map(\.name)
      && firmwareFiles.map(\.name) == other.firmwareFiles.map(\.name)
      && networks.map(\.queues) == other.networks.map(\.queues)
      && (vsock == nil) == (other.vsock == nil)
      && disks.map(\.hardware) == other.disks.map(\.hardware)
  }

  /// A machine of the same make that nothing of the host is connected to.
  var withoutLinks: MachineConfiguration {
    var plain = self
    plain.serial = .file("/dev/null")
    plain.disks = []
    plain.channels = []
    plain.vsock = nil
    plain.audio.wave = nil
    if case .uefi = boot { plain.boot = .uefi(variables: nil) }
    for index in plain.networks.indices { plain.networks[index].backend = .none }
    return plain
  }
}

extension MachineConfiguration.Disk {
  /// What of a disk a guest sees at once.
  fileprivate var hardware: Self {
    var disk = MachineConfiguration.Disk(path: "")
    (disk.isReadOnly, disk.bus, disk.serial, disk.queues) = (isReadOnly, bus, serial, queues)
    return disk
  }
}
