/// The commands: each takes its arguments, does one thing and says what came of it.
enum QMPCommands {
  typealias Handler =
    @Sendable (inout QMPArguments, inout QMPInputTranslator, any QMPMachine) throws(QMPError)
    -> JSON
  typealias PlainHandler = @Sendable (any QMPMachine) throws(QMPError) -> JSON

  /// `qmp_capabilities` is the session's own.
  static var names: [String] { (Array(plain.keys) + handlers.keys + ["qmp_capabilities"]).sorted() }

  /// Carries out a command.
  static func perform(
    _ command: String, _ arguments: inout QMPArguments, _ translator: inout QMPInputTranslator,
    _ machine: any QMPMachine
  ) throws(QMPError) -> JSON {
    if let handler = plain[command] {
      try arguments.end()
      return try handler(machine)
    }
    guard let handler = handlers[command] else {
      throw QMPError(.commandNotFound, "The command \(command) has not been found")
    }
    return try handler(&arguments, &translator, machine)
  }

  /// Commands without arguments.
  private static let plain: [String: PlainHandler] = [
    "query-version": { version(of: $0) },
    "query-status": { status(of: $0) },
    "query-commands": { _ in .array(names.map { ["name": .string($0)] }) },
    "query-name": { ["name": .string($0.name)] },
    "stop": { machine throws(QMPError) in
      try machine.stop()
      return [:]
    },
    "cont": { machine throws(QMPError) in
      try machine.resume()
      return [:]
    },
    "system_reset": { machine throws(QMPError) in
      try machine.reset()
      return [:]
    },
    "system_powerdown": { machine throws(QMPError) in
      try machine.pressPowerButton()
      return [:]
    },
    // QEMU's machine has no such button.
    "carrel-sleep-button": { machine throws(QMPError) in
      try machine.pressSleepButton()
      return [:]
    },
    "inject-nmi": { machine throws(QMPError) in
      try machine.injectNMI()
      return [:]
    },
    "query-cpus-fast": { processors(of: $0) },
    "query-block": { drives(of: $0) },
    "query-carrel-save": { $0.saveState.json },
    "query-block-jobs": { blockJobs(of: $0) },
    "query-balloon": { machine throws(QMPError) in try balloonState(of: machine) },
    "quit": {
      $0.quit()
      return [:]
    },
  ]

  private static let handlers: [String: Handler] = [
    "screendump": screendump,
    "send-key": sendKey,
    "input-send-event": inputSendEvent,
    "human-monitor-command": humanMonitorCommand,
    "eject": eject,
    "set_link": setLink,
    "block_set_io_throttle": limit,
    "balloon": balloon,
    "blockdev-change-medium": changeMedium,
    "blockdev-snapshot-sync": snapshotDisk,
    "block-stream": stream,
    "block-job-cancel": cancelJob,
    "block-job-set-speed": setJobSpeed,
    "carrel-save": save,
    "carrel-save-continue": continueSave,
  ]

  static func version(of machine: any QMPMachine) -> JSON {
    let (major, minor, micro) = machine.version
    return [
      "qemu": [
        "major": .integer(Int64(major)), "minor": .integer(Int64(minor)),
        "micro": .integer(Int64(micro)),
      ],
      "package": "carrel",
    ]
  }

  private static func status(of machine: any QMPMachine) -> JSON {
    let state = machine.runState
    return [
      "status": .string(state.rawValue), "running": .bool(state == .running),
      "singlestep": false,
    ]
  }

  @Sendable private static func screendump(
    arguments: inout QMPArguments, _: inout QMPInputTranslator, machine: any QMPMachine
  ) throws(QMPError) -> JSON {
    let path = try arguments.string("filename")
    let name = try arguments.optionalString("format") ?? "ppm"
    guard let format = QMPImageFormat(rawValue: name) else {
      throw QMPError(.generic, "Parameter 'format' does not accept value '\(name)'")
    }
    // There is one console, whatever its name, and one head of it.
    let device = try arguments.optionalString("device")
    if let head = try arguments.optionalInteger("head") {
      guard device != nil else {
        throw QMPError(.generic, "'head' must be specified together with 'device'")
      }
      guard head == 0 else {
        throw QMPError(.generic, "The display adapter has no head \(head), only head 0")
      }
    }
    try arguments.end()
    try machine.screendump(to: path, format: format)
    return [:]
  }

  @Sendable private static func sendKey(
    arguments: inout QMPArguments, _: inout QMPInputTranslator, machine: any QMPMachine
  ) throws(QMPError) -> JSON {
    var codes: [UInt16] = []
    for key in try arguments.array("keys") {
      codes.append(try QMPInputTranslator.scanCode(try QMPArguments(key)))
    }
    let hold = try arguments.optionalInteger("hold-time") ?? 100
    try arguments.end()
    guard codes.count <= 16 else {
      throw QMPError(.generic, "Parameter 'keys' takes at most 16 keys")
    }
    guard (0...60_000).contains(hold) else {
      throw QMPError(.generic, "Parameter 'hold-time' expects 0 to 60000 milliseconds")
    }
    try machine.press(codes, milliseconds: hold)
    return [:]
  }

  @Sendable private static func inputSendEvent(
    arguments: inout QMPArguments, translator: inout QMPInputTranslator,
    machine: any QMPMachine
  ) throws(QMPError) -> JSON {
    let events = try arguments.array("events")
    // There is one console and one head of it.
    arguments.ignore("device")
    arguments.ignore("head")
    try arguments.end()
    try machine.send(try translator.translate(events))
    return [:]
  }

  @Sendable private static func humanMonitorCommand(
    arguments: inout QMPArguments, _: inout QMPInputTranslator, machine: any QMPMachine
  ) throws(QMPError) -> JSON {
    let line = try arguments.string("command-line")
    arguments.ignore("cpu-index")
    try arguments.end()
    let words = line.split(whereSeparator: \.isWhitespace).map(String.init)
    switch words {
    case []: return ""
    case ["info", "status"]:
      let state = machine.runState
      let suffix = state == .running || state == .paused ? "" : " (\(state.rawValue))"
      return .string("VM status: \(state == .running ? "running" : "paused")\(suffix)\r\n")
    case ["info", "version"]:
      let (major, minor, micro) = machine.version
      return .string("\(major).\(minor).\(micro) (carrel)\r\n")
    case ["info", "name"]: return .string("\(machine.name)\r\n")
    case ["info"], ["help"]:
      return .string(
        "info name -- show the machine's name\r\n"
          + "info status -- show whether the machine runs\r\n"
          + "info version -- show the version of this program\r\n")
    default: return .string("unknown command: '\(line)'\r\n")
    }
  }
}
