import Foundation
import LinuxSystem

/// A guest that QEMU saved, to go on from as often as is wanted, in the way that costs QEMU
/// least: its RAM is a file that each maps for itself, so that what is read is little.
final class QEMUTemplate {
  private let place: CloneDirectory
  private let name: String
  private let machine: [String]
  /// By which each knows the file of its state.
  fileprivate static let stateDescriptor: Int32 = 4

  /// - Parameters:
  ///   - name: of its files.
  ///   - machine: what it is, but for its RAM.
  ///   - options: of the machine that is saved alone.
  ///   - awaitReady: returns when it is to be saved.
  init(
    _ place: CloneDirectory, _ name: String, of machine: [String], _ options: [String] = [],
    awaitReady: (Spoken) throws -> Void
  ) throws {
    (self.place, self.name, self.machine) = (place, name, machine)
    let (original, monitor) = try start(options, isOriginal: true)
    defer { original.stop() }
    try awaitReady(original)
    try monitor.tell("migrate-set-parameters", ["max-bandwidth": 1 << 40])
    try monitor.execute("migrate", ["uri": "exec:cat > \(state).new && mv \(state).new \(state)"])
    try monitor.awaitEvent("MIGRATION", done: "completed", failed: "failed")
    // What writes the file may not have ended yet.
    let deadline = Clock.seconds + 30
    while !FileManager.default.fileExists(atPath: state) {
      guard Clock.seconds < deadline else { throw BenchError("\(state) was not written") }
      poll(nil, 0, 1)
    }
  }

  private var state: String { place.path("\(name).state") }
  private var memory: String { place.path("\(name).ram") }

  /// As many as are asked for, or as fit in the host's memory.
  static func fitting(_ wanted: Int) -> Int {
    max(1, min(wanted, Int(HostUse.available) / mostKibibytes))
  }

  /// Of each.
  private static let mostKibibytes = 64 << 10

  func memory(of clone: QEMUClone) -> CloneMemory {
    CloneMemory(of: clone.process, names: [memory], nameless: 16384)
  }

  /// A process that has nothing to do yet.
  ///
  /// - Parameter isOriginal: is to be saved, and the others are to go on from it.
  fileprivate func start(
    _ options: [String], isOriginal: Bool, _ state: FileDescriptor? = nil
  ) throws -> (Spoken, Monitor) {
    let (ours, theirs) = try UnixSocket.pair(kind: .stream)
    var descriptors: [Int32: FileDescriptor] = [
      2: try place.qemuErrors(), 3: theirs.descriptor,
    ]
    descriptors[Self.stateDescriptor] = state
    let memory =
      "memory-backend-file,id=ram,size=512M,mem-path=\(memory),share=\(isOriginal ? "on" : "off")"
    let server = try Spoken(
      [
        place.qemu, "-machine", "pc,accel=kvm,memory-backend=ram", "-m", "512", "-object", memory,
        "-nodefaults", "-vga", "std", "-display", "none", "-serial", "stdio", "-chardev",
        "socket,id=control,fd=3", "-mon", "chardev=control,mode=control",
      ] + machine + options, descriptors: descriptors)
    let monitor = Monitor(unheard: ours)
    try monitor.tell("qmp_capabilities")
    // RAM that is a file's stays there.
    let capabilities = ["x-ignore-shared", "events"].map { ["capability": $0, "state": true] }
    try monitor.tell("migrate-set-capabilities", ["capabilities": capabilities])
    return (server, monitor)
  }

  /// A process that goes on from the files at once.
  func clone() throws -> QEMUClone {
    let clone = try QEMUClone(self, [], try FileDescriptor.open(state))
    try clone.goOn()
    return clone
  }

  /// A process that waits for `goOn`, and has a VNC server at a path meanwhile.
  func waitingClone(vnc: String) throws -> QEMUClone {
    let clone = try QEMUClone(
      self, ["-vnc", "unix:\(vnc),lossy=on"], try FileDescriptor.open(state))
    try clone.awaitStart()
    return clone
  }
}

/// A QEMU that goes on from a template.
final class QEMUClone {
  /// When it was asked for.
  private(set) var asked = Clock.seconds
  private let server: Spoken
  private let monitor: Monitor

  fileprivate init(_ template: QEMUTemplate, _ options: [String], _ state: FileDescriptor) throws {
    (server, monitor) = try template.start(
      options + ["-incoming", "defer"], isOriginal: false, state)
  }

  deinit { server.stop() }

  var process: Int32 { server.process.handle.identifier }

  /// Waits until it has made all that it makes before it is told to go on.
  fileprivate func awaitStart() throws { try monitor.execute("query-status") }

  func goOn() throws {
    try monitor.tell("migrate-incoming", ["uri": "fd:\(QEMUTemplate.stateDescriptor)"])
  }

  /// As `goOn`, of one that was started before it was asked for.
  func goOnNow() throws {
    asked = Clock.seconds
    try goOn()
  }

  /// Has the guest answer a challenge.
  func prove() throws {
    // Bytes that come before its state was loaded are lost.
    try monitor.awaitEvent("RESUME")
    try server.prove()
  }

  /// Has the guest write to 256 pages.
  func dirty() throws { try server.line.dirty() }

  /// Ends it; only who lets go of it waits for its end.
  func kill() { try? server.process.handle.send(.kill) }
}

/// What is measured of QEMU, or why it cannot be.
struct QEMUPeer {
  private let place: CloneDirectory
  private let template: Result<QEMUTemplate, BenchError>

  init(_ place: CloneDirectory, _ template: () throws -> QEMUTemplate) {
    self.place = place
    self.template = place.explainQEMU(template)
  }

  func measure<Value>(_ body: (QEMUTemplate) throws -> Value) -> Result<Value, BenchError> {
    template.flatMap { template in place.explainQEMU { try body(template) } }
  }
}

extension CloneDirectory {
  fileprivate func qemuErrors() throws -> FileDescriptor {
    try FileDescriptor.open(path("qemu.errors"), [.writeOnly, .create, .append])
  }

  /// What `body` throws, and what QEMU had to say.
  fileprivate func explainQEMU<Value>(_ body: () throws -> Value) -> Result<Value, BenchError> {
    do {
      return .success(try body())
    } catch {
      let printed = kernelText(path("qemu.errors")).split(separator: "\n")
      let lines = Set(printed).sorted().joined(separator: "; ")
      return .failure(
        BenchError(
          "not measured of QEMU: \(error); it printed \(lines.isEmpty ? "nothing" : lines)"))
    }
  }
}

extension Comparison {
  /// Beside QEMU that goes on from a template file, where it can.
  init(
    _ name: String, unit: String, ours: Double, qemu: Result<Double, BenchError>, bound: Double?,
    higherIsBetter: Bool = false, note: String? = nil
  ) {
    switch qemu {
    case .success(let peer):
      self.init(
        name, unit: unit, ours: ours, peer: peer, bound: bound, higherIsBetter: higherIsBetter,
        note: note)
    case .failure(let reason):
      self.init(name, unit: unit, ours: ours, note: reason.description)
    }
  }
}
