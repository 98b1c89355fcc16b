import LinuxSystem
import QMP
import TestSupport
import Testing

/// A `carrel-vmm run` with a program in it, killed when it is let go of.
final class RunningProgram {
  let directory: TemporaryDirectory
  let process: ChildProcess

  /// - Parameters:
  ///   - arguments: after those that start the program; `@` stands for the directory.
  ///   - descriptors: its standard ones; what is not given is /dev/null, and for
  ///     standard error the file `errors`.
  init(
    _ program: GuestProgram?, _ arguments: [String] = [],
    in directory: TemporaryDirectory? = nil, descriptors: [Int32: FileDescriptor] = [:],
    newSession: Bool = false
  ) throws {
    let directory = try directory ?? TemporaryDirectory()
    self.directory = directory
    var words = [
      "run", "--memory", "16M", "--control", directory.path("control"), "--runtime-directory",
      directory.path("runtime"),
    ]
    if let program {
      words += ["--kernel", try directory.write(program.elf(), to: "program")]
    }
    words += arguments.map { $0.split(separator: "@", omittingEmptySubsequences: false) }
      .map { $0.joined(separator: directory.path) }
    var request = ChildProcess.Request(Programs.built("carrel-vmm"), words)
    let nothing = try FileDescriptor.open("/dev/null", .writable)
    request.descriptors = [
      0: nothing, 1: nothing,
      2: try FileDescriptor.open(directory.path("errors"), [.writeOnly, .create, .truncate]),
    ]
    request.descriptors.merge(descriptors) { $1 }
    request.parentDeathSignal = .kill
    request.newSession = newSession
    process = try ChildProcess(request)
  }

  deinit {
    try? process.handle.send(.kill)
    _ = try? process.wait()
  }

  /// What it wrote to standard error.
  var errors: String { text("errors") }

  func text(_ name: String) -> String {
    String(decoding: (try? directory.read(name)) ?? [], as: UTF8.self)
  }

  /// The record of its end, once it ended.
  func exitRecord() throws -> JSON { try JSON(parsing: try directory.read("runtime/exit.json")) }

  func control() throws -> ControlClient {
    try ControlClient(
      try UnixSocket.connect(
        to: directory.path("control"), kind: .stream, offeredBy: process.handle))
  }
}

/// A client of the control socket that waits for what it asks for.
final class ControlClient {
  struct Event {
    let name: String
    let data: JSON?
  }

  private let socket: UnixSocket
  private var client = QMPClient()
  private var events: [Event] = []
  /// Whether the machine's start, which is told as RESUME, is over for this client.
  private var hasStarted = false

  init(_ socket: UnixSocket) throws {
    self.socket = socket
    var isReady = false
    while !isReady {
      for message in try receive() where message == .ready { isReady = true }
    }
  }

  /// The next message; events are kept for `next`.
  private func receive() throws -> [QMPClient.Message] {
    let output = client.pendingOutput()
    if !output.isEmpty { try socket.descriptor.writeAll(output) }
    let received = try socket.receive()
    try #require(!received.isEnd, "the control socket was closed")
    let messages = client.receive(received.bytes)
    for case .event(let name, let data, _, _) in messages {
      // The socket is there before the machine runs: a fast client sees it start.
      let isStart = name == "RESUME" && !hasStarted
      hasStarted = true
      if !isStart { events.append(Event(name: name, data: data)) }
    }
    let rest = client.pendingOutput()
    if !rest.isEmpty { try socket.descriptor.writeAll(rest) }
    return messages
  }

  @discardableResult
  func execute(_ command: String, _ arguments: JSON? = nil) throws -> JSON {
    let identifier = client.command(command, arguments)
    while true {
      for case .result(identifier, let result) in try receive() { return try result.get() }
    }
  }

  /// The next event, whatever it is.
  func nextEvent() throws -> Event {
    while events.isEmpty { _ = try receive() }
    return events.removeFirst()
  }
}
