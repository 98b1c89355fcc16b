import LinuxSystem
import Machine
import TestSupport
import Testing

/// The small Linux that `make guest-linux` builds, with its shell on the serial line.
///
/// It is booted once in a run with each graphics card; every test goes on from the state in
/// which the shell first answered, or X had started, as a boot takes minutes where kernels
/// are interpreted.
final class SmallLinux {
  /// Where a test begins.
  enum Start: CaseIterable {
    case shell
    /// With virtio's graphics and sound cards in place of bochs-drm's and AC'97.
    case virtioShell
    /// X on the standard VGA, which bochs-drm drives.
    case desktop
    case virtioDesktop
    /// X on a virtio card with two outputs.
    case twoOutputs
  }

  private static let built = "build/guest-linux/current"
  private static let builtToDebug = "build/guest-linux/debug"
  private static let builtForMany = "build/guest-linux/smp"
  static let isBuilt = Files.exists("\(built)/append")
  static let isBuiltToDebug = Files.exists("\(builtToDebug)/append")
  static let isBuiltForMany = Files.exists("\(builtForMany)/append")

  let machine: Machine
  let peer: SerialPeer
  let events = Guarded<[MachineEvent]>([])
  private let files: TemporaryDirectory

  /// - Parameters:
  ///   - wave: a file that its sound is written to.
  ///   - network: where its network card's cable leads now.
  convenience init(
    _ start: Start = .shell, wave: String? = nil,
    network: MachineConfiguration.Network.Backend = .user
  ) throws {
    try self.init(goingOnFrom: try Self.booted(start).get(), wave: wave, network: network)
  }

  /// Boots it here, unless it was, for a test that goes on from that in a network of its own.
  static func prepare(_ start: Start = .shell) throws {
    _ = try booted(start).get()
  }

  private static func booted(_ start: Start) -> Result<Booted, any Error> {
    switch start {
    case .shell: shell
    case .virtioShell: virtioShell
    case .desktop: desktop
    case .virtioDesktop: virtioDesktop
    case .twoOutputs: twoOutputs
    }
  }

  /// One whose kernel checks its drivers, booted anew.
  static func debugging() throws -> SmallLinux {
    try SmallLinux(goingOnFrom: try boot(builtToDebug, .virtio(outputs: 1), .virtio))
  }

  /// One for many processors, booted once for each number of them.
  static func with(processors: Int) throws -> SmallLinux {
    let booted = try manyProcessors.withLock { known in
      if let booted = known[processors] { return booted }
      let booted = try boot(builtForMany, .standard, .ac97, processors: processors)
      known[processors] = booted
      return booted
    }
    return try SmallLinux(goingOnFrom: booted)
  }

  private init(
    goingOnFrom booted: Booted, wave: String? = nil,
    network: MachineConfiguration.Network.Backend = .user
  ) throws {
    files = try TemporaryDirectory()
    var configuration = try Self.connected(booted.configuration, files)
    configuration.audio.wave = wave
    configuration.networks = [
      .init(network, queues: booted.configuration.networks.first?.queues ?? 1)
    ]
    machine = try Machine(configuration, from: booted.state)
    machine.onEvent { [events] event in events.change { $0.append(event) } }
    peer = try SerialPeer(configuration)
    try machine.resume()
  }

  deinit { machine.tearDown() }

  /// Another that goes on from what this one is now, which ends.
  func goingOn() throws -> SmallLinux {
    let state = try machine.save()
    machine.tearDown()
    return try SmallLinux(
      goingOnFrom: Booted(configuration: machine.configuration, state: state, files: files))
  }

  private struct Booted: Sendable {
    let configuration: MachineConfiguration
    let state: SavedMachine
    let files: TemporaryDirectory
  }

  private static let shell = Result { try boot(built, .standard, .ac97) }
  private static let desktop = Result { try startX(try shell.get()) }
  private static let virtioShell = Result { try boot(built, .virtio(outputs: 1), .virtio) }
  private static let virtioDesktop = Result { try startX(try virtioShell.get()) }
  private static let twoOutputs = Result {
    try startX(try boot(built, .virtio(outputs: 2), .virtio))
  }
  private static let manyProcessors = Guarded<[Int: Booted]>([:])

  /// Sockets in a directory of the test's own.
  private static func connected(_ configuration: MachineConfiguration, _ files: TemporaryDirectory)
    throws -> MachineConfiguration
  {
    var configuration = configuration
    configuration.serial = .socket(files.path("serial"))
    configuration.channels = [.init(name: channel, path: files.path("channel"))]
    configuration.vsock = .init(identifier: 3, path: files.path("vsock"))
    return configuration
  }

  /// Disks of 1 MiB: "disk" on IDE with known contents, "virtio" empty; and the desktop's.
  private static func boot(
    _ directory: String, _ display: MachineConfiguration.Display,
    _ sound: MachineConfiguration.Audio.Card, processors: Int = 1
  ) throws -> Booted {
    let files = try TemporaryDirectory()
    var configuration = MachineConfiguration()
    configuration.memory = 256 << 20
    configuration.display = display
    configuration.audio = .init(sound)
    configuration.boot = .kernel(
      path: "\(directory)/vmlinux", initialRAMDisk: "\(directory)/initramfs",
      commandLine: String(decoding: try Files.read("\(directory)/append"), as: UTF8.self))
    configuration.disks = [
      .init(path: try files.write(diskContents, to: "disk")),
      .init(
        path: try files.write([UInt8](repeating: 0, count: 1 << 20), to: "virtio"), bus: .virtio,
        queues: min(processors, mostQueues)),
      .init(path: "\(directory)/desktop.img", isReadOnly: true, bus: .virtio),
    ]
    configuration.networks = [.init(.user, queues: min(processors, mostQueues))]
    configuration.processors = processors
    configuration.hasUSB = true
    configuration = try connected(configuration, files)
    let machine = try Machine(configuration)
    defer { machine.tearDown() }
    let peer = try SerialPeer(configuration)
    try machine.resume()
    _ = try peer.read(until: "guest: ready\n", seconds: directory == built ? 900 : 7200)
    return Booted(configuration: configuration, state: try machine.save(), files: files)
  }

  private static func startX(_ booted: Booted) throws -> Booted {
    let linux = try SmallLinux(goingOnFrom: booted)
    _ = try linux.run("desktop", seconds: 600)
    return Booted(
      configuration: booted.configuration, state: try linux.machine.save(), files: booted.files)
  }

  /// Of a disk, and of a network card in pairs.
  static let mostQueues = 4

  static let channel = "org.example.channel"

  /// The host's end of its channel.
  func channel() throws -> UnixSocket {
    try UnixSocket.connect(to: files.path("channel"), kind: .stream)
  }

  /// The guest's end of its channel, below /dev.
  func channelDevice() throws -> String {
    let path = try run("cd /sys/class/virtio-ports; grep -l '\(Self.channel)' */name")
    guard let name = path.split(separator: "/").first else {
      throw CommandFailed(command: Self.channel, status: "none", output: path)
    }
    return String(name)
  }

  /// Gives the guest a file, through its channel.
  func put(_ bytes: [UInt8], in file: String) throws {
    let device = try channelDevice()
    let host = try channel()
    // Until the guest has heard that the host is there, it reads an end.
    try tell(
      ": >\(file); while s=$(stat -c %s \(file)); [ $s -lt \(bytes.count) ];"
        + " do head -c $((\(bytes.count) - s)) /dev/\(device) >>\(file); done; echo END")
    try host.descriptor.writeAll(bytes)
    _ = try peer.read(until: "END\n", seconds: 120)
  }

  static let diskContents = (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 &* 167 ^ $0 >> 9) }

  /// What is on a disk now: "disk" on IDE, or "virtio".
  static func disk(_ name: String) throws -> [UInt8] {
    try shell.get().files.read(name)
  }

  /// What `command` writes; it must succeed.
  @discardableResult
  func run(_ command: String, seconds: UInt64 = 120) throws -> String {
    try tell("\(command); echo END:$?")
    let text = try peer.read(until: "END:", seconds: seconds)
    let status = try peer.read(until: "\n", seconds: seconds)
    guard status == "0" else { throw CommandFailed(command: command, status: status, output: text) }
    return text
  }

  /// Has the shell carry out `command`, and does not wait for it.
  func tell(_ command: String) throws {
    try peer.socket.descriptor.writeAll(Array("\(command)\n".utf8))
  }

  /// The path by which programs of the host reach the guest's sockets.
  var vsock: String { files.path("vsock") }

  /// The number of the event device whose name contains `text`.
  func inputDevice(_ text: String) throws -> String {
    let path = try run("grep -l '\(text)' /sys/class/input/event*/device/name | head -n 1")
    let parts = path.split(separator: "/")
    guard parts.count > 3 else { throw CommandFailed(command: text, status: "none", output: path) }
    return String(parts[3])
  }

  /// Waits until the guest has kept so much.
  func waitForMemory(_ bytes: UInt64) {
    events.wait(until: { $0.contains(.balloonChanged(memory: bytes)) }) { _ in }
  }

  struct CommandFailed: Error {
    let command: String
    let status: String
    let output: String
  }
}

extension SerialPeer {
  /// What comes before `end`, which is taken too.
  func read(until end: String, seconds: UInt64) throws -> String {
    let deadline = MonotonicClock.now + seconds * 1_000_000_000
    let poller = try Poller()
    try poller.add(socket.descriptor, token: 0)
    var bytes: [UInt8] = []
    while !bytes.suffix(end.utf8.count).elementsEqual(end.utf8) {
      let message =
        try poller.wait(milliseconds: 1000).isEmpty ? nil : try socket.receive(capacity: 1)
      if let message, !message.isEnd {
        bytes += message.bytes
      } else if message != nil || MonotonicClock.now > deadline {
        throw NeverCame(what: "\(end) after \(String(decoding: bytes.suffix(2000), as: UTF8.self))")
      }
    }
    return String(decoding: bytes.dropLast(end.utf8.count), as: UTF8.self)
  }
}

extension Trait where Self == ConditionTrait {
  static var needsSmallLinux: Self {
    .enabled(if: SmallLinux.isBuilt, "needs the small Linux: 'make guest-linux' builds it")
  }

  static var needsDesktopDisk: Self {
    .enabled(
      if: Files.exists("build/guest-linux/current/desktop.img"),
      "needs the small Linux's desktop: 'make guest-linux' builds it")
  }
}
