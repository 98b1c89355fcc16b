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
  /// `nil` where it holds something of each machine's own: UEFI's variables.
  private let boot: BootMedium?
  /// The states of devices, decoded as far as could be.
  private let archive: BoardArchive

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
    let medium = try BootMedium(configuration)
    firmware = try BoardFirmware(configuration, medium)
    boot = medium.variables == nil ? medium : nil

    // One that is made for trial tells what KVM will tell every time.
    let system = try KVMSystem()
    let processor = try ProcessorModel.offered(by: system)
    let recorder = BoardArchive.Recorder()
    let recording = BoardArchive(saved.devices, recorder: recorder)
    let trial = try BoardCore(
      configuration, firmware, saved: recording, stored: saved.storedMemory)
    host = HostOffer(system: system, processor: processor, powerOn: trial.powerOn)
    if let boot { Self.warmUp(configuration, trial, boot, recording, saved.livedNanoseconds) }
    archive = recording.with(recorder)
  }

  /// Snapshots of machines that a user's session ran in have a section of this name.
  public static let sessionSection = "session"

  /// Builds devices of every kind once, so that their states are decoded, and Swift's and the
  /// C library's own tables made. What takes part in it leads nowhere.
  private static func warmUp(
    _ configuration: MachineConfiguration, _ core: BoardCore, _ boot: BootMedium,
    _ archive: BoardArchive, _ lived: UInt64
  ) {
    let plain = configuration.withoutLinks
    let lock = Lock()
    lock.withLock {
      // Where it fails, machines decode and make for themselves what it did not come to.
      guard let links = try? HostLinks(plain),
        let board = try? Board(
          plain, lock: lock, links: links, boot: boot, core: core, saved: archive,
          livedNanoseconds: lived)
      else { return }
      board.becomeAnother(.another)
    }
    _ = try? archive.state("kernel", KernelState.self)
    for disk in configuration.disks.indices {
      _ = try? archive.state("virtio-disk\(disk)", VirtioPCI.State.self)
      _ = try? archive.state("virtio-disk\(disk)-device", VirtioBlock.State.self)
    }
    _ = try? archive.state("virtio-console", VirtioPCI.State.self)
    _ = try? archive.state("virtio-console-device", VirtioConsole.State.self)
    _ = try? archive.state("virtio-vsock", VirtioPCI.State.self)
    _ = try? archive.state("virtio-vsock-device", VirtioVsock.State.self)
  }

  /// Makes KVM's part of one more machine: of this process, and none that is copied from it.
  public func prepare() throws -> PreparedMachine {
    let core = try BoardCore(
      configuration, firmware, saved: archive, stored: saved.storedMemory, host: host)
    if let video = core.videoMemory { try memories["video"]?.copy(to: video) }
    return PreparedMachine(core: core, boot: boot, saved: saved, archive: archive)
  }

  /// Has `body` do with a machine what will be done with clones, but for running it: what
  /// Swift's runtime and the C library make when something is done first, copies of this
  /// process find made. The machine leads nowhere, and its threads are gone afterwards.
  public func rehearse(_ body: (Machine) throws -> Void) throws {
    var prepared = try prepare()
    // Without its disks it is not the one that was saved.
    prepared.saved = saved.undescribed
    try body(try Machine(configuration.withoutLinks, prepared))
  }

  /// Sums over the bytes of its memories, by their names, which never change.
  public func checksums() throws -> [String: UInt64] {
    try memories.mapValues { try $0.checksum() }
  }
}

/// A machine of which all is made that does not depend on who it is.
public struct PreparedMachine: ~Copyable {
  let core: BoardCore
  let boot: BootMedium?
  var saved: SavedMachine
  let archive: BoardArchive
}

extension Machine {
  /// Builds a clone, which waits where its template was saved.
  ///
  /// - Parameter configuration: the template's but for the machine's own: name, UUID, disks,
  ///   addresses, contents of firmware files, and what devices lead to.
  public convenience init(
    _ configuration: MachineConfiguration, as identity: RestoredIdentity = .another,
    _ prepared: consuming PreparedMachine
  ) throws {
    try configuration.validate()
    try self.init(
      configuration, boot: try prepared.boot ?? BootMedium(configuration), core: prepared.core,
      from: prepared.saved, prepared.archive, as: identity)
  }
}

extension MachineConfiguration {
  /// A machine of the same make that nothing of the host is connected to.
  fileprivate var withoutLinks: MachineConfiguration {
    var plain = self
    plain.serial = .file("/dev/null")
    plain.disks = []
    plain.cdrom = nil
    plain.channels = []
    plain.vsock = nil
    plain.audio.wave = nil
    for index in plain.networks.indices { plain.networks[index].backend = .none }
    return plain
  }
}
