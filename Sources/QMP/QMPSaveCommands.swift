/// What `carrel-save` asks for.
package struct QMPSaveRequest: Hashable, Sendable {
  package let path: String
  /// UUIDs as text; the machine checks them.
  package let identifier: String?
  package let base: String?
  /// End the machine once the file is durable.
  package let suspends: Bool
  /// Wait for `carrel-save-continue` before the last of memory is copied, the guest running.
  package let holds: Bool
  /// Mark what is saved as holding what a user did in a session.
  package let hasSession: Bool
  /// Disks that go over to new overlays at the saved instant.
  package let overlays: [QMPOverlay]
}

/// A new overlay that a disk is to go over to.
package struct QMPOverlay: Hashable, Sendable {
  package let device: String
  package let file: String
}

/// How far the last `carrel-save` is.
package struct QMPSaveState: Hashable, Sendable {
  package enum Status: String, Sendable { case none, active, holding, completed, failed }

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
  /// Whether disks are on their overlays; `nil` when there were none to make.
  package var isSwitched: Bool?
  /// Whether the instant that is saved is over.
  package var isTaken = false
  package var error: String?

  package init() {}

  package init(path: String, identifier: String, hasOverlays: Bool = false) {
    status = .active
    self.path = path
    self.identifier = identifier
    isSwitched = hasOverlays ? false : nil
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
    members["taken"] = .bool(isTaken)
    members["switched"] = isSwitched.map { .bool($0) }
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
      suspends: try arguments.optionalBoolean("suspend") ?? false,
      holds: try arguments.optionalBoolean("hold") ?? false,
      hasSession: try arguments.optionalBoolean("session") ?? false,
      overlays: try overlays(try arguments.optionalArray("overlays") ?? []))
    try arguments.end()
    guard path.hasPrefix("/") else {
      throw QMPError(.generic, "Parameter 'path' expects an absolute path")
    }
    guard request.overlays.isEmpty || !request.suspends else {
      throw QMPError(
        .generic, "Parameter 'overlays' is for a machine that runs on, and 'suspend' ends it")
    }
    guard !request.holds || !request.suspends else {
      throw QMPError(.generic, "Parameter 'hold' is for a machine that runs on")
    }
    try machine.save(request)
    return [:]
  }

  @Sendable static func continueSave(
    arguments: inout QMPArguments, _: inout QMPInputTranslator, machine: any QMPMachine
  ) throws(QMPError) -> JSON {
    try arguments.end()
    try machine.continueSave()
    return [:]
  }

  private static func overlays(_ list: [JSON]) throws(QMPError) -> [QMPOverlay] {
    var overlays: [QMPOverlay] = []
    for element in list {
      var members = try QMPArguments(element)
      let overlay = try overlay(
        try members.string("device"), try members.string("file"), "file")
      try members.end()
      guard !overlays.contains(where: { $0.device == overlay.device || $0.file == overlay.file })
      else { throw QMPError(.generic, "Parameter 'overlays' names a device or file twice") }
      overlays.append(overlay)
    }
    return overlays
  }

  private static func overlay(
    _ device: String, _ file: String, _ parameter: String
  ) throws(QMPError) -> QMPOverlay {
    guard file.hasPrefix("/") else {
      throw QMPError(.generic, "Parameter '\(parameter)' expects an absolute path")
    }
    return QMPOverlay(device: device, file: file)
  }

  /// QEMU's command, as far as it makes the file: the switch of one disk alone.
  @Sendable static func snapshotDisk(
    arguments: inout QMPArguments, _: inout QMPInputTranslator, machine: any QMPMachine
  ) throws(QMPError) -> JSON {
    let overlay = try overlay(
      try arguments.string("device"), try arguments.string("snapshot-file"), "snapshot-file")
    let (format, mode) = (
      try arguments.optionalString("format") ?? "qcow2",
      try arguments.optionalString("mode") ?? "absolute-paths"
    )
    try arguments.end()
    guard format == "qcow2" else {
      throw QMPError(
        .generic, "Parameter 'format' does not accept value '\(format)', only 'qcow2'")
    }
    guard mode == "absolute-paths" else {
      throw QMPError(
        .generic,
        "Parameter 'mode' does not accept value '\(mode)', only 'absolute-paths': the file is made")
    }
    try machine.switchDisk(overlay)
    return [:]
  }
}
