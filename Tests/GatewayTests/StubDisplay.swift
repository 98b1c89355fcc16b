import Brokering
import Gateway
import LinuxSystem

/// Stands in for display processes: a thread each that speaks RFB 3.8 with a small
/// grey screen and keeps what it was told.
final class StubDisplay: DisplayLauncher {
  /// What one display process saw.
  final class Process: Sendable {
    let id: ConnectionID
    let control: UnixSocket
    private let client: UnixSocket
    private let seen = Guarded(Seen())

    struct Seen {
      var messages: [String] = []
      var keys: [UInt32] = []
      var updateRequests = 0
      var bytesFromViewer = 0
      var hasEnded = false
    }

    init(id: ConnectionID, client: UnixSocket, control: UnixSocket) {
      self.id = id
      self.client = client
      self.control = control
    }

    /// Closes the connection to the viewer, as the process's end does.
    func endClient() { client.shutDown() }

    func note(_ change: (inout Seen) -> Void) { seen.change(change) }

    /// Waits until the condition holds.
    func wait(until condition: @escaping @Sendable (Seen) -> Bool) async throws -> Seen {
      try await blocking { self.seen.wait(until: condition) { $0 } }
    }

    var now: Seen { seen.withLock { $0 } }
  }

  enum Behaviour: Sendable {
    case serves
    /// After ClientInit sends for ever, whether anybody reads or not.
    case floods
    /// Never speaks.
    case hangs
    case doesNotStart
  }

  private let behaviour: Behaviour
  private let processes = Guarded<[Process]>([])

  init(_ behaviour: Behaviour = .serves) { self.behaviour = behaviour }

  /// Waits for the display process with that index.
  func process(_ index: Int) async throws -> Process {
    try await blocking { self.processes.wait(until: { $0.count > index }) { $0[index] } }
  }

  var count: Int { processes.withLock { $0.count } }

  func launch(for id: ConnectionID) async throws -> DisplayEndpoint {
    if behaviour == .doesNotStart { throw SystemError(code: 2, "execute carrel-display") }
    let (viewer, client) = try UnixSocket.pair(kind: .stream)
    let (control, ours) = try UnixSocket.pair(kind: .packets)
    let process = Process(id: id, client: client, control: ours)
    processes.change { $0.append(process) }
    _ = try Thread(name: "stub-control") { Self.listen(process) }
    _ = try Thread(name: "stub-display") { [behaviour] in
      try? Self.serve(client, process, behaviour)
      process.note { $0.hasEnded = true }
      client.shutDown()
      ours.shutDown()
    }
    return DisplayEndpoint(viewer: viewer.descriptor, control: control)
  }

  private static func listen(_ process: Process) {
    while let message = try? process.control.receive(), !message.isEnd {
      process.note { $0.messages.append(String(decoding: message.bytes, as: UTF8.self)) }
    }
  }

  private static func serve(
    _ client: UnixSocket, _ process: Process, _ behaviour: Behaviour
  ) throws {
    var stream = Stream(socket: client)
    if behaviour == .hangs {
      _ = try stream.take(1)
      return
    }
    try stream.put(Array("RFB 003.008\n".utf8))
    _ = try stream.take(12)
    try stream.put([1, 1])
    _ = try stream.take(1)
    try stream.put([0, 0, 0, 0])
    _ = try stream.take(1)
    process.note { $0.bytesFromViewer += 1 }
    try stream.put(serverInit)
    if behaviour == .floods {
      while true { try stream.put([UInt8](repeating: 0, count: 65536)) }
    }
    while true { try answer(&stream, process) }
  }

  static let width = 64
  static let height = 48

  /// 64×48, 32 bits per pixel, called "stub".
  static let serverInit: [UInt8] =
    [0, 64, 0, 48, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]
    + [0, 0, 0, 4] + Array("stub".utf8)

  private static func answer(_ stream: inout Stream, _ process: Process) throws {
    switch try stream.take(1)[0] {
    case 0: _ = try stream.take(19)
    case 2:
      let head = try stream.take(3)
      _ = try stream.take(4 * (Int(head[1]) << 8 | Int(head[2])))
    case 3:
      _ = try stream.take(9)
      let isFirst = process.now.updateRequests == 0
      process.note { $0.updateRequests += 1 }
      // One picture; afterwards nothing changes.
      guard isFirst else { return }
      let head: [UInt8] = [0, 0, 0, 1, 0, 0, 0, 0, 0, 64, 0, 48, 0, 0, 0, 0]
      try stream.put(head + [UInt8](repeating: 0x80, count: width * height * 4))
    case 4:
      let event = try stream.take(7)
      let key = event[3...].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
      if event[0] == 1 { process.note { $0.keys.append(key) } }
    case 5: _ = try stream.take(5)
    case 6:
      let head = try stream.take(7)
      _ = try stream.take(Int(head[5]) << 8 | Int(head[6]))
    default: throw SystemError(code: 71, "understand the viewer")
    }
  }

  private struct Stream {
    let socket: UnixSocket
    var buffer: [UInt8] = []

    mutating func take(_ count: Int) throws -> [UInt8] {
      while buffer.count < count {
        let message = try socket.receive()
        if message.isEnd { throw SystemError(code: 32, "read from the viewer") }
        buffer += message.bytes
      }
      defer { buffer.removeFirst(count) }
      return Array(buffer.prefix(count))
    }

    func put(_ bytes: [UInt8]) throws {
      var rest = bytes
      while !rest.isEmpty { rest.removeFirst(try socket.send(rest)) }
    }
  }
}
