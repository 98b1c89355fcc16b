import CNativeCode
import Foundation
import LinuxSystem
import QMP

/// The guest, and its states as both servers save them.
struct CloneDirectory {
  let url: URL

  init() throws {
    url = FileManager.default.temporaryDirectory.appendingPathComponent(
      "carrel-bench-clones-\(getpid())")
    try? FileManager.default.removeItem(at: url)
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    var code = [UInt8](repeating: 0, count: 4096)
    let count = cguest_copy(CGUEST_CLONE, &code, code.count)
    try PVHKernel.elf(Array(code.prefix(count))).write(to: url.appendingPathComponent("guest"))
  }

  func path(_ name: String) -> String { url.appendingPathComponent(name).path }

  /// What carrel-vmm's machine is.
  var machine: [String] {
    [
      "--memory", "512M", "--kernel", path("guest"), "--net", "none", "--fw-cfg",
      "name=opt/carrel/hostname,string=template",
    ]
  }

  /// Milliseconds from QEMU's start, with what the same guest's file holds, to its answer.
  func timeQEMU() throws -> Double {
    if !FileManager.default.fileExists(atPath: path("qemu")) { try saveQEMU() }
    let start = Clock.seconds
    let server = try Spoken(qemu + ["-incoming", "exec:cat \(path("qemu"))"])
    defer { server.stop() }
    // Bytes that come before its state was loaded are lost.
    try Monitor(path("qemu.control"), offeredBy: server.process).awaitStatus("running")
    try server.prove()
    return (Clock.seconds - start) * 1000
  }

  private var qemu: [String] {
    [
      "/usr/bin/qemu-system-x86_64", "-machine", "pc,accel=kvm", "-m", "512", "-kernel",
      path("guest"), "-nodefaults", "-vga", "std", "-display", "none", "-device",
      "virtio-rng-pci,addr=15.2", "-serial", "stdio", "-qmp",
      "unix:\(path("qemu.control")),server=on,wait=off",
    ]
  }

  private func saveQEMU() throws {
    let server = try Spoken(qemu)
    defer { server.stop() }
    let monitor = try Monitor(path("qemu.control"), offeredBy: server.process)
    try server.awaitReady()
    try monitor.execute(
      "migrate-set-capabilities", ["capabilities": [["capability": "events", "state": true]]])
    try monitor.execute("migrate", ["uri": "exec:cat > \(path("qemu"))"])
    try monitor.awaitEvent("MIGRATION", done: "completed", failed: "failed")
  }
}

/// A server whose guest's serial port is at the other end of a socket.
final class Spoken {
  let process: ChildProcess
  let line: UnixSocket

  init(_ arguments: [String]) throws {
    let (ours, theirs) = try UnixSocket.pair(kind: .stream)
    var request = ChildProcess.Request(arguments[0], Array(arguments.dropFirst()))
    request.descriptors = [0: theirs.descriptor, 1: theirs.descriptor]
    request.parentDeathSignal = .kill
    process = try ChildProcess(request)
    line = ours
  }

  func stop() {
    try? process.handle.send(.kill)
    _ = try? process.wait()
  }

  func awaitReady() throws {
    guard try line.receive(capacity: 1).bytes == Array("R".utf8) else {
      throw BenchError("the guest is not ready")
    }
  }

  func prove() throws { try line.prove() }
}

extension UnixSocket {
  /// Has the guest answer a challenge.
  func prove() throws {
    try send([0x2A])
    guard try receive(capacity: 1).bytes == [0x2A ^ 0x55] else {
      throw BenchError("the guest did not answer")
    }
  }
}

/// `carrel-vmm template` of the guest, and a connection with it.
final class TemplateProcess {
  private static let prepared = 4
  private static let connections = 8

  let process: ChildProcess
  private let sockets: [UnixSocket]
  /// Clones that each connection still owes an answer about, the oldest first.
  private var owed: [[BenchClone]]

  /// - Parameters:
  ///   - machine: what it is; of the directory's guest without.
  ///   - options: of the machine that is saved alone.
  ///   - awaitReady: returns when it is to be saved.
  init(
    _ settings: Settings, in place: CloneDirectory, of machine: [String]? = nil,
    _ options: [String] = ["--serial", "stdio"],
    awaitReady: (Spoken) throws -> Void = { try $0.awaitReady() }
  ) throws {
    let machine = machine ?? place.machine
    let original = try Spoken(
      [settings.vmm, "run", "--control", place.path("control")] + options + machine)
    try awaitReady(original)
    let monitor = try Monitor(place.path("control"), offeredBy: original.process)
    try monitor.execute("stop")
    try monitor.execute("carrel-save", ["path": place.path("saved")])
    try monitor.awaitEvent("CARREL_SAVE_STATUS", done: "completed", failed: "failed")
    original.stop()
    var request = ChildProcess.Request(
      settings.vmm,
      [
        "template", "--restore", place.path("saved"), "--listen", place.path("listen"),
        "--prepared", "\(Self.prepared)",
      ] + machine)
    request.parentDeathSignal = .kill
    let process = try ChildProcess(request)
    self.process = process
    let listener = place.path("listen")
    sockets = try (0..<Self.connections).map { _ in
      try Self.connect(to: listener, kind: .packets, process)
    }
    owed = Array(repeating: [], count: Self.connections)
    try settle()
    // All copies at once take longer than one.
    poll(nil, 0, 200)
  }

  func stop() {
    try? process.handle.send(.terminate)
    _ = try? process.wait()
  }

  /// Asks for a clone; on a connection that has no answer to give, if that matters.
  func clone(
    _ name: String, connection: Int = 0, displayLink: String? = nil
  ) throws -> BenchClone {
    // One request at a time.
    while let earlier = owed[connection].first { try earlier.awaitAnswer() }
    let clone = try BenchClone(sockets[connection], name, displayLink) { [unowned self] in
      owed[connection].removeFirst()
    }
    owed[connection].append(clone)
    return clone
  }

  /// Waits until no clone is left and new ones stand ready.
  func settle() throws {
    try wait("\(Self.prepared) copies") { children == Self.prepared }
    // They make themselves ready when they are there.
    poll(nil, 0, 20)
  }

  /// Waits until copies stand ready, however many clones there are.
  func settle(besides clones: Int) throws {
    try wait("copies") { children == Self.prepared + clones }
    poll(nil, 0, 20)
  }

  private var children: Int {
    let number = process.handle.identifier
    let text = kernelText("/proc/\(number)/task/\(number)/children")
    return text.split(separator: " ").count
  }

  private func wait(_ what: String, _ condition: () -> Bool) throws {
    let deadline = Clock.seconds + 30
    while !condition() {
      guard Clock.seconds < deadline else { throw BenchError("the template has not \(what)") }
      poll(nil, 0, 1)
    }
  }

  /// Connects to what a process is about to listen at.
  static func connect(
    to path: String, kind: UnixSocket.Kind, _ process: ChildProcess
  ) throws -> UnixSocket {
    let deadline = Clock.seconds + 60
    while true {
      do {
        return try UnixSocket.connect(to: path, kind: kind)
      } catch {
        guard process.handle.isRunning, Clock.seconds < deadline else { throw error }
        poll(nil, 0, 1)
      }
    }
  }
}

/// A clone that was asked for.
final class BenchClone {
  let asked: Double
  private let line: UnixSocket
  private let socket: UnixSocket
  private let whenAnswered: () -> Void
  private var answer: (process: Int32, startTime: UInt64)?

  init(
    _ socket: UnixSocket, _ name: String, _ displayLink: String?,
    whenAnswered: @escaping () -> Void
  ) throws {
    self.socket = socket
    self.whenAnswered = whenAnswered
    var request = CloneRequest(name: name)
    request.serial = "stdio"
    request.displayLink = displayLink
    let (ours, theirs) = try UnixSocket.pair(kind: .stream)
    let errors = try FileDescriptor.standard(2)
    line = ours
    asked = Clock.seconds
    try socket.send(
      request.encoded, descriptors: [theirs.descriptor, theirs.descriptor, errors])
  }

  /// Has the guest answer a challenge.
  func prove() throws { try line.prove() }

  /// Has it write to 256 pages.
  func dirty() throws {
    try line.send(Array("d".utf8))
    guard try line.receive(capacity: 1).bytes == Array("d".utf8) else {
      throw BenchError("the guest did not answer")
    }
  }

  @discardableResult
  func awaitAnswer() throws -> (process: Int32, startTime: UInt64) {
    if let answer { return answer }
    let bytes = try socket.receive().bytes
    whenAnswered()
    guard case .started(let process, let startTime) = CloneAnswer(parsing: bytes) else {
      throw BenchError("the template answered \(String(decoding: bytes, as: UTF8.self))")
    }
    answer = (process, startTime)
    return (process, startTime)
  }

  /// Ends it, without waiting for its end.
  func stop() throws {
    let (process, startTime) = try awaitAnswer()
    try ProcessHandle(identifier: process, startTime: startTime).send(.terminate)
  }
}
