/// What `carrel-save` asks for.
package struct QMPSaveRequest: Hashable, Sendable {
  package let path: String
  /// UUIDs as text; the machine checks them.
  package let identifier: String?
  package let base: String?
  /// End the machine once the file is durable.
  package let suspends: Bool
}

/// How far the last `carrel-save` is.
package struct QMPSaveState: Hashable, Sendable {
  package enum Status: String, Sendable { case none, active, completed, failed }

  package var status = Status.none
  package var path = ""
  package var identifier = ""
  /// Bytes of memory that are in the file, and that were to be copied as far as is known.
  package var transferred: UInt64 = 0
  package var total: UInt64 = 0
  /// Whether the file needs its base.
  package var isDifferential = false
  /// Microseconds that the guest stood for it.
  package var downtime: UInt64 = 0
  package var error: String?

  package init() {}

  package init(path: String, identifier: String) {
    status = .active
    self.path = path
    self.identifier = identifier
  }

  var json: JSON {
    var members: [String: JSON] = ["status": .string(status.rawValue)]
    guard status != .none else { return .object(members) }
    members["path"] = .string(path)
    members["id"] = .string(identifier)
    members["transferred"] = .integer(Int64(clamping: transferred))
    members["total"] = .integer(Int64(clamping: total))
    members["downtime"] = .integer(Int64(clamping: downtime))
    if status == .completed { members["differential"] = .bool(isDifferential) }
    members["error"] = error.map { .string($0) }
    return .object(members)
  }
}

/// Saving the machine in a file. QEMU's `migrate` to a file leaves it to others to end the
/// process and to know whether the file is still current; these commands are Carrel's own.
extension QMPCommands {
  @Sendable static func save(
    arguments: inout QMPArguments, _: inout QMPInputTranslator, machine: any QMPMachine
  ) throws(QMPError) -> JSON {
    let path = try arguments.string("path")
    let request = QMPSaveRequest(
      path: path, identifier: try arguments.optionalString("id"),
      base: try arguments.optionalString("base"),
      suspends: try arguments.optionalBoolean("suspend") ?? false)
    try arguments.end()
    guard path.hasPrefix("/") else {
      throw QMPError(.generic, "Parameter 'path' expects an absolute path")
    }
    try machine.save(request)
    return [:]
  }
}
