/// What can be asked of QEMU's guest agent (its `qapi-schema.json`).
package enum GuestAgentCommand: Hashable, Sendable {
  package enum ShutdownMode: String, Hashable, Sendable { case powerdown, reboot, halt }

  /// A program to run in the guest, as the agent's user; it is looked for on the path.
  package struct Program: Hashable, Sendable {
    package let path: String
    package let arguments: [String]
    /// For its standard input.
    package let input: [UInt8]?

    package init(path: String, arguments: [String], input: [UInt8]? = nil) {
      self.path = path
      self.arguments = arguments
      self.input = input
    }
  }

  case ping, info, networkInterfaces, freeze, thaw, freezeStatus
  case shutdown(ShutdownMode)
  /// Since 1970, in UTC.
  case setTime(nanoseconds: Int64)
  case setPassword(user: String, password: [UInt8])
  /// Its output is kept by the agent until `executionStatus` finds that it has ended.
  case execute(Program)
  case executionStatus(process: Int)

  package var name: String {
    switch self {
    case .ping: "guest-ping"
    case .info: "guest-info"
    case .networkInterfaces: "guest-network-get-interfaces"
    case .freeze: "guest-fsfreeze-freeze"
    case .thaw: "guest-fsfreeze-thaw"
    case .freezeStatus: "guest-fsfreeze-status"
    case .shutdown: "guest-shutdown"
    case .setTime: "guest-set-time"
    case .setPassword: "guest-set-user-password"
    case .execute: "guest-exec"
    case .executionStatus: "guest-exec-status"
    }
  }

  package var arguments: [String: JSON]? {
    switch self {
    case .ping, .info, .networkInterfaces, .freeze, .thaw, .freezeStatus: return nil
    case .shutdown(let mode): return ["mode": .string(mode.rawValue)]
    case .setTime(let nanoseconds): return ["time": .integer(nanoseconds)]
    case .setPassword(let user, let password):
      return [
        "username": .string(user), "password": .string(Base64.encode(password)), "crypted": false,
      ]
    case .execute(let program):
      var arguments: [String: JSON] = [
        "path": .string(program.path), "arg": .array(program.arguments.map(JSON.string)),
        "capture-output": true,
      ]
      if let input = program.input { arguments["input-data"] = .string(Base64.encode(input)) }
      return arguments
    case .executionStatus(let process): return ["pid": .integer(Int64(process))]
    }
  }

  /// A shutdown that succeeds is not answered: the answer to the `ping` behind it says that
  /// it did not fail.
  package var isAnswered: Bool {
    if case .shutdown = self { false } else { true }
  }

  var line: [UInt8] {
    var members: [String: JSON] = ["execute": .string(name)]
    if let arguments { members["arguments"] = .object(arguments) }
    return JSON.object(members).encoded + [0x0A] + (isAnswered ? [] : Self.ping.line)
  }
}
