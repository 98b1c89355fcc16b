import CNativeCode
import Foundation
import LinuxSystem
import QMP

/// The guest, and its states as both servers save them.
struct CloneDirectory {
  let url: URL
  let qemu: String

  init() throws {
    qemu = try Subject.locate("qemu-system-x86_64")
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

  /// What QEMU's machine is.
  var qemuMachine: [String] {
    ["-kernel", path("guest"), "-device", "virtio-rng-pci,addr=15.2"]
  }

  func remove() { try? FileManager.default.removeItem(at: url) }
}

/// A server whose guest's serial port is at the other end of a socket.
final class Spoken {
  let process: ChildProcess
  let line: UnixSocket

  /// - Parameter descriptors: more of them, by the number it knows each by.
  init(_ arguments: [String], descriptors: [Int32: FileDescriptor] = [:]) throws {
    let (ours, theirs) = try UnixSocket.pair(kind: .stream)
    var request = ChildProcess.Request(arguments[0], Array(arguments.dropFirst()))
    request.descriptors = descriptors
    request.descriptors[0] = theirs.descriptor
    request.descriptors[1] = theirs.descriptor
    request.parentDeathSignal = .kill
    process = try ChildProcess(request)
    line = ours
  }

  func stop() {
    try? process.handle.send(.kill)
    _ = try? process.wait()
  }

  func awaitReady() throws {
    try line.awaitBytes("the guest to be ready", seconds: 120)
    guard try line.receive(capacity: 1).bytes == Array("R".utf8) else {
      throw BenchError("the guest is not ready")
    }
  }

  /// Waits until the guest has written what holds `text`.
  func awaitLine(_ text: String) throws {
    var written = ""
    while !written.contains(text) {
      try line.awaitBytes("the guest to write \"\(text)\"", seconds: 120)
      let bytes = try line.receive().bytes
      guard !bytes.isEmpty else { throw BenchError("the guest ended: \(written)") }
      written += String(decoding: bytes, as: UTF8.self)
    }
  }

  func prove() throws { try line.prove() }
}

extension UnixSocket {
  /// Waits until there is something to receive, or the other end is closed.
  func awaitBytes(_ what: String, seconds: Double) throws {
    let deadline = Clock.seconds + seconds
    while true {
      let left = deadline - Clock.seconds
      guard left > 0 else { throw BenchError("waited for \(what) for \(Int(seconds)) s") }
      var watched = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
      if poll(&watched, 1, Int32(left * 1000) + 1) > 0 { return }
    }
  }

  /// Has the guest answer a challenge.
  func prove() throws {
    try send([0x2A])
    try awaitBytes("the guest's answer", seconds: 30)
    guard try receive(capacity: 1).bytes == [0x2A ^ 0x55] else {
      throw BenchError("the guest did not answer")
    }
  }

  /// Has the guest write to 256 pages.
  func dirty() throws {
    try send(Array("d".utf8))
    try awaitBytes("the guest's answer", seconds: 30)
    guard try receive(capacity: 1).bytes == Array("d".utf8) else {
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
  func dirty() throws { try line.dirty() }

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
