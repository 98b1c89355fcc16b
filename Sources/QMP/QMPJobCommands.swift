/// What `block-stream` asks for.
package struct QMPStreamRequest: Hashable, Sendable {
  package let identifier: String
  package let device: String
  /// The image to be based on; `nil` for none.
  package let base: String?
  /// Bytes a second; 0 for no limit.
  package let speed: UInt64
}

/// A disk that takes in what it is based on.
package struct QMPBlockJob: Hashable, Sendable {
  package enum End: Hashable, Sendable {
    case completed, cancelled
    case failed(String)
  }

  package let identifier: String
  package let device: String
  /// Of the disk, in bytes, and how many of them are done.
  package var length: UInt64 = 0
  package var offset: UInt64 = 0
  package var speed: UInt64

  package init(identifier: String, device: String, speed: UInt64) {
    (self.identifier, self.device, self.speed) = (identifier, device, speed)
  }

  fileprivate var members: [String: JSON] {
    [
      "type": "stream", "device": .string(identifier), "len": .integer(Int64(clamping: length)),
      "offset": .integer(Int64(clamping: offset)), "speed": .integer(Int64(clamping: speed)),
    ]
  }

  /// A `BlockJobInfo`.
  var json: JSON {
    .object(
      members.merging([
        "busy": true, "paused": false, "ready": false, "status": "running", "io-status": "ok",
        "auto-finalize": true, "auto-dismiss": true,
      ]) { $1 })
  }

  /// What its events tell.
  func json(_ end: End) -> JSON {
    var members = members
    if case .failed(let problem) = end { members["error"] = .string(problem) }
    return .object(members)
  }
}

/// QEMU's jobs of disks, of which there is one kind: `block-stream`.
extension QMPCommands {
  @Sendable static func stream(
    arguments: inout QMPArguments, _: inout QMPInputTranslator, machine: any QMPMachine
  ) throws(QMPError) -> JSON {
    let device = try arguments.string("device")
    let base = try arguments.optionalString("base")
    let request = QMPStreamRequest(
      identifier: try arguments.optionalString("job-id") ?? device, device: device, base: base,
      speed: try speed(try arguments.optionalInteger("speed") ?? 0))
    try arguments.end()
    guard base?.hasPrefix("/") != false else {
      throw QMPError(.generic, "Parameter 'base' expects an absolute path")
    }
    guard !request.identifier.isEmpty, request.identifier.utf8.count <= 127 else {
      throw QMPError(.generic, "Invalid job ID '\(request.identifier)'")
    }
    try machine.stream(request)
    return [:]
  }

  @Sendable static func cancelJob(
    arguments: inout QMPArguments, _: inout QMPInputTranslator, machine: any QMPMachine
  ) throws(QMPError) -> JSON {
    let identifier = try arguments.string("device")
    // Nothing that could be lost waits to be finished.
    _ = try arguments.optionalBoolean("force")
    try arguments.end()
    try machine.cancelBlockJob(identifier)
    return [:]
  }

  @Sendable static func setJobSpeed(
    arguments: inout QMPArguments, _: inout QMPInputTranslator, machine: any QMPMachine
  ) throws(QMPError) -> JSON {
    let identifier = try arguments.string("device")
    let speed = try speed(try arguments.integer("speed"))
    try arguments.end()
    try machine.setBlockJobSpeed(identifier, speed)
    return [:]
  }

  private static func speed(_ value: Int) throws(QMPError) -> UInt64 {
    guard value >= 0 else {
      throw QMPError(.generic, "Parameter 'speed' expects a number of bytes a second, or 0")
    }
    return UInt64(value)
  }

  static func blockJobs(of machine: any QMPMachine) -> JSON {
    .array(machine.blockJobs.map(\.json))
  }
}
