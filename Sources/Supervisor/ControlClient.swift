import Brokering
import LinuxSystem
import QMP

/// What the supervisor asks of a running VMM. One connection for each command: the
/// supervisor holds nothing that a restart could lose.
///
/// Blocks up to the time limit; never called on the task pool.
struct ControlClient: Sendable {
  enum Command: Sendable {
    case powerdown, quit, reset
    /// What drives there are.
    case drives
    case limit(drive: String, DiskLimits)
    /// Presses the key of that name, for which no guest types anything.
    case wake
    case screenshot(path: String)
    /// The same without compression.
    case picture(path: String)
    /// Plugs the cable of a network card in.
    case plugIn(card: String)
    /// Saves the machine in a file and ends it.
    case suspend(path: String, hasSession: Bool)
    /// Saves the machine in a file while it runs, and has a disk go on in a new image.
    case save(SaveRequest)
    /// Has one go on that holds.
    case continueSave
    /// How far that is.
    case saveStatus
    /// Has a disk take in what it reads from the images between it and `base`.
    case stream(drive: String, base: String?)
    case cancelStream(drive: String)

    var name: String {
      switch self {
      case .powerdown: "system_powerdown"
      case .quit: "quit"
      case .reset: "system_reset"
      case .drives: "query-block"
      case .limit: "block_set_io_throttle"
      case .wake: "send-key"
      case .screenshot, .picture: "screendump"
      case .plugIn: "set_link"
      case .suspend, .save: "carrel-save"
      case .continueSave: "carrel-save-continue"
      case .saveStatus: "query-carrel-save"
      case .stream: "block-stream"
      case .cancelStream: "block-job-cancel"
      }
    }

    var arguments: JSON? {
      switch self {
      case .screenshot(let path): .object(["filename": .string(path), "format": "png"])
      case .picture(let path): .object(["filename": .string(path), "format": "ppm"])
      case .plugIn(let card): .object(["name": .string(card), "up": true])
      case .suspend(let path, let hasSession):
        .object(["path": .string(path), "suspend": true, "session": .bool(hasSession)])
      case .save(let request): request.arguments
      case .wake: .object(["keys": .array([.object(["type": "qcode", "data": "wake"])])])
      case .limit(let drive, let limits): Self.arguments(limits, of: drive)
      case .stream(let drive, let base?):
        .object(["device": .string(drive), "base": .string(base)])
      case .stream(let drive, nil), .cancelStream(let drive): .object(["device": .string(drive)])
      case .powerdown, .quit, .reset, .drives, .continueSave, .saveStatus: nil
      }
    }

    private static func arguments(_ limits: DiskLimits, of drive: String) -> JSON {
      var members: [String: JSON] = [
        "id": .string(drive), "bps_rd": 0, "bps_wr": 0, "iops_rd": 0, "iops_wr": 0,
      ]
      for (name, value) in limits.values { members[name] = .integer(Int64(value ?? 0)) }
      return .object(members)
    }
  }

  struct SaveRequest: Sendable {
    let path: String
    let identifier: String
    let base: String?
    /// A disk, and the new image that it is to go on in.
    let overlay: (device: String, file: String)?
    /// Whether it waits for `continueSave` before the instant.
    let holds: Bool
    /// Whether a user's session ever ran in it.
    let hasSession: Bool

    fileprivate var arguments: JSON {
      var arguments: [String: JSON] = [
        "path": .string(path), "id": .string(identifier), "hold": .bool(holds),
        "session": .bool(hasSession),
      ]
      if let base { arguments["base"] = .string(base) }
      if let overlay {
        arguments["overlays"] = .array([
          ["device": .string(overlay.device), "file": .string(overlay.file)]
        ])
      }
      return .object(arguments)
    }
  }

  let path: String

  /// Sends one command and waits for its answer, and with `until` for what becomes of it:
  /// an event for which that is true, or the end of the connection.
  ///
  /// - Returns: the answer.
  @discardableResult
  func perform(
    _ command: Command, within limit: Duration,
    until: ((_ event: String, _ data: JSON?) throws -> Bool)? = nil
  ) throws -> JSON {
    var answer: JSON?
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
        // That ends the VMM; with others it is too early.
        if let answer, case .suspend = command { return answer }
        throw SystemError(code: 104, "\(command.name) at \(path)")
      }
      for message in client.receive(received.bytes) {
        switch message {
        case .result(identifier, let result):
          answer = try result.get()
          if until == nil, let answer { return answer }
        case .event(let name, let data, _, _):
          if try until?(name, data) == true { return answer ?? .null }
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

  /// Has the VMM save itself, by `suspend` or `save`, and waits until the file is whole.
  ///
  /// - Parameters:
  ///   - identifier: of the save; `nil` when there can be no other.
  ///   - step: told of what comes before the end.
  /// - Throws: `SaveFailure` with what the VMM said.
  func save(
    _ command: Command, identifier: String? = nil, within limit: Duration,
    step: @escaping (JSON) throws -> Void = { _ in }
  ) throws {
    try perform(command, within: limit) { event, data in
      guard event == "CARREL_SAVE_STATUS", let data,
        identifier == nil || data["id"]?.text == identifier
      else { return false }
      if let problem = data["error"]?.text { throw SaveFailure(problem: problem) }
      if data["status"]?.text == "completed" { return true }
      try step(data)
      return false
    }
  }

  /// Has a disk take in what it reads from the images between it and `base`, and waits until it
  /// does without them.
  ///
  /// - Throws: `SaveFailure` with what the VMM said; nothing has changed then.
  func stream(_ drive: String, onto base: String?, within limit: Duration) throws {
    do {
      try perform(.stream(drive: drive, base: base), within: limit) { event, data in
        guard event.hasPrefix("BLOCK_JOB_"), data?["device"]?.text == drive else { return false }
        if let problem = data?["error"]?.text { throw SaveFailure(problem: problem) }
        guard event == "BLOCK_JOB_COMPLETED" else {
          throw SaveFailure(problem: "somebody cancelled it")
        }
        return true
      }
    } catch let failure as SystemError {
      _ = try? perform(.cancelStream(drive: drive), within: .seconds(5))
      throw failure
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

/// What a VMM said.
struct SaveFailure: Error, CustomStringConvertible {
  let problem: String

  var description: String { problem }
}
