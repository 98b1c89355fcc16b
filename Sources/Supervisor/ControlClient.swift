import LinuxSystem
import QMP

/// What the supervisor asks of a running VMM. One connection for each command: the
/// supervisor holds nothing that a restart could lose.
///
/// Blocks up to the time limit; never called on the task pool.
struct ControlClient: Sendable {
  enum Command: Sendable {
    case powerdown, quit, reset
    /// Presses the key of that name, for which no guest types anything.
    case wake
    case screenshot(path: String)
    /// Saves the machine in a file and ends it.
    case suspend(path: String)

    var name: String {
      switch self {
      case .powerdown: "system_powerdown"
      case .quit: "quit"
      case .reset: "system_reset"
      case .wake: "send-key"
      case .screenshot: "screendump"
      case .suspend: "carrel-save"
      }
    }

    var arguments: JSON? {
      switch self {
      case .screenshot(let path): .object(["filename": .string(path), "format": "png"])
      case .suspend(let path): .object(["path": .string(path), "suspend": true])
      case .wake: .object(["keys": .array([.object(["type": "qcode", "data": "wake"])])])
      case .powerdown, .quit, .reset: nil
      }
    }
  }

  let path: String

  /// Sends one command and waits for its answer, and with `until` for what becomes of it:
  /// an event for which that is true, or the end of the connection.
  func perform(
    _ command: Command, within limit: Duration,
    until: ((_ event: String, _ data: JSON?) throws -> Bool)? = nil
  ) throws {
    var isAnswered = false
    let deadline = MonotonicClock.now + UInt64(clamping: limit.components.seconds) * 1_000_000_000
    let socket = try UnixSocket.connect(to: path, kind: .stream)
    let poller = try Poller()
    try poller.add(socket.descriptor, token: 0)
    var client = QMPClient()
    let identifier = client.command(command.name, command.arguments)
    while true {
      try wait(poller, until: deadline)
      let received = try socket.receive(blocking: false)
      guard !received.isEnd else {
        if isAnswered { return }
        throw SystemError(code: 104, "\(command.name) at \(path)")
      }
      for message in client.receive(received.bytes) {
        switch message {
        case .result(identifier, let result):
          _ = try result.get()
          guard until != nil else { return }
          isAnswered = true
        case .event(let name, let data, _, _):
          if try until?(name, data) == true { return }
        case .protocolViolation(let text):
          throw SystemError(code: 71, "\(command.name) at \(path) (\(text))")
        case .ready, .result: break
        }
      }
      // A command is far smaller than a socket's buffer.
      let output = client.pendingOutput()
      if !output.isEmpty { try socket.send(output) }
    }
  }

  private func wait(_ poller: Poller, until deadline: UInt64) throws {
    while true {
      let now = MonotonicClock.now
      guard now < deadline else { throw SystemError(code: 110, "wait for an answer at \(path)") }
      let rest = (deadline - now) / 1_000_000 + 1
      if !(try poller.wait(milliseconds: Int32(clamping: rest))).isEmpty { return }
    }
  }
}
