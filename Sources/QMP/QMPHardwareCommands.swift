/// Commands about processors, memory, drives and network cards.
extension QMPCommands {
  /// QMP type `CpuInfoFast`: the cores of one socket.
  static func processors(of machine: any QMPMachine) -> JSON {
    .array(
      machine.processors.map { processor in
        [
          "cpu-index": .integer(Int64(processor.index)),
          "qom-path": .string("/machine/unattached/device[\(processor.index)]"),
          "thread-id": .integer(Int64(processor.threadIdentifier)), "target": "x86_64",
          "props": [
            "socket-id": 0, "core-id": .integer(Int64(processor.index)), "thread-id": 0,
          ],
        ]
      })
  }

  /// QMP type `BalloonInfo`; what the guest says of its memory beside it, as QEMU has it in
  /// its device's property.
  static func balloonState(of machine: any QMPMachine) throws(QMPError) -> JSON {
    let balloon = try machine.readBalloon()
    let statistics = balloon.statistics.mapValues { JSON.integer(Int64(clamping: $0)) }
    return [
      "actual": .integer(Int64(clamping: balloon.actual)),
      "guest-stats": [
        "stats": .object(statistics), "last-update": .integer(balloon.lastUpdate),
      ],
    ]
  }

  @Sendable static func balloon(
    arguments: inout QMPArguments, _: inout QMPInputTranslator, machine: any QMPMachine
  ) throws(QMPError) -> JSON {
    let bytes = try arguments.integer("value")
    try arguments.end()
    guard bytes > 0 else {
      throw QMPError(.generic, "Parameter 'value' expects a size in bytes")
    }
    try machine.setBalloon(UInt64(bytes))
    return [:]
  }

  /// QMP type `BlockInfo`, with the members that QEMU always sends.
  static func drives(of machine: any QMPMachine) -> JSON {
    .array(
      machine.drives.map { drive in
        var members: [String: JSON] = [
          "device": .string(drive.name), "type": "unknown", "removable": .bool(drive.isRemovable),
          "locked": .bool(drive.isLocked),
        ]
        if drive.isRemovable { members["tray_open"] = .bool(drive.isTrayOpen) }
        members["inserted"] = drive.medium.map(inserted)
        return .object(members)
      })
  }

  /// QMP type `BlockDeviceInfo`.
  private static func inserted(_ medium: QMPDrive.Medium) -> JSON {
    var members: [String: JSON] = [
      "file": .string(medium.path), "drv": .string(medium.layers[0].format),
      "ro": .bool(medium.isReadOnly), "encrypted": false,
      "backing_file_depth": .integer(Int64(medium.layers.count - 1)), "detect_zeroes": "off",
      "write_threshold": 0, "image": image(medium.layers[...], medium.size),
      "cache": ["writeback": true, "direct": false, "no-flush": false],
    ]
    if medium.layers.count > 1 { members["backing_file"] = .string(medium.layers[1].path) }
    members.merge(medium.limits.members) { $1 }
    return .object(members)
  }

  /// QMP type `ImageInfo`. The size is that of the disk, whatever that of its base is.
  private static func image(_ layers: ArraySlice<QMPDrive.Layer>, _ size: UInt64) -> JSON {
    guard let layer = layers.first else { return .null }
    var members: [String: JSON] = [
      "filename": .string(layer.path), "format": .string(layer.format),
      "virtual-size": .integer(Int64(clamping: size)), "dirty-flag": false,
    ]
    let rest = layers.dropFirst()
    if let base = rest.first {
      members["backing-filename"] = .string(base.path)
      members["full-backing-filename"] = .string(base.path)
      members["backing-filename-format"] = .string(base.format)
      members["backing-image"] = image(rest, size)
    }
    return .object(members)
  }

  @Sendable static func eject(
    arguments: inout QMPArguments, _: inout QMPInputTranslator, machine: any QMPMachine
  ) throws(QMPError) -> JSON {
    let drive = try removableDrive(&arguments, machine)
    let force = try arguments.optionalBoolean("force") ?? false
    try arguments.end()
    try machine.eject(drive, force: force)
    return [:]
  }

  @Sendable static func setLink(
    arguments: inout QMPArguments, _: inout QMPInputTranslator, machine: any QMPMachine
  ) throws(QMPError) -> JSON {
    let name = try arguments.string("name")
    guard let isUp = try arguments.optionalBoolean("up") else {
      throw QMPError(.generic, "Parameter 'up' is missing")
    }
    try arguments.end()
    try machine.setLink(name, isUp: isUp)
    return [:]
  }

  @Sendable static func changeMedium(
    arguments: inout QMPArguments, _: inout QMPInputTranslator, machine: any QMPMachine
  ) throws(QMPError) -> JSON {
    let drive = try removableDrive(&arguments, machine)
    let path = try arguments.string("filename")
    let force = try arguments.optionalBoolean("force") ?? false
    if let format = try arguments.optionalString("format"), format != "raw" {
      throw QMPError(.generic, "Parameter 'format' does not accept value '\(format)', only 'raw'")
    }
    // A disc is read-only in each of QEMU's modes but one.
    let mode = try arguments.optionalString("read-only-mode") ?? "retain"
    guard mode == "retain" || mode == "read-only" else {
      throw QMPError(.generic, "Parameter 'read-only-mode' does not accept value '\(mode)'")
    }
    try arguments.end()
    try machine.changeMedium(of: drive, to: path, force: force)
    return [:]
  }

  private static func removableDrive(
    _ arguments: inout QMPArguments, _ machine: any QMPMachine
  ) throws(QMPError) -> String {
    let drive = try drive(&arguments, machine)
    guard drive.isRemovable else {
      throw QMPError(.generic, "Device '\(drive.name)' is not removable")
    }
    return drive.name
  }

  /// The drive that `id`, or as older clients say `device`, names.
  static func drive(
    _ arguments: inout QMPArguments, _ machine: any QMPMachine
  ) throws(QMPError) -> QMPDrive {
    let device = try arguments.optionalString("device")
    let identifier = try arguments.optionalString("id")
    guard let name = identifier ?? device else {
      throw QMPError(.generic, "Parameter 'id' is missing")
    }
    guard identifier == nil || device == nil else {
      throw QMPError(.generic, "Parameters 'id' and 'device' name the same: give one of them")
    }
    guard let drive = machine.drives.first(where: { $0.name == name }) else {
      throw QMPError(.generic, "Device '\(name)' not found")
    }
    return drive
  }
}
