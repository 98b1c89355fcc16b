/// What the guest agent answers. Guests may say anything: what is not of its kind is `nil`,
/// and lists and texts have limits.
package enum GuestAgentAnswers {
  package struct Info: Hashable, Sendable {
    package struct Command: Hashable, Sendable {
      package let name: String
      package let isEnabled: Bool
    }

    package let version: String
    package let commands: [Command]
  }

  package struct Interface: Hashable, Sendable {
    package struct Address: Hashable, Sendable {
      package let text: String
      package let prefix: Int
    }

    package let name: String
    /// Loopbacks and tunnels may have none.
    package let hardwareAddress: String?
    package let addresses: [Address]
  }

  /// `GuestExecStatus`.
  package struct Execution: Hashable, Sendable {
    package let hasEnded: Bool
    /// `nil` while it runs, or when a signal ended it.
    package let status: Int?
    package let signal: Int?
    package let output: [UInt8]
    package let errors: [UInt8]
    /// The agent itself kept no more of it.
    package let isTruncated: Bool
  }

  private static let mostCommands = 1000
  private static let mostInterfaces = 256
  private static let mostAddresses = 64

  package static func info(_ json: JSON) -> Info? {
    guard let version = json["version"]?.text else { return nil }
    let commands = (json["supported_commands"]?.elements ?? []).prefix(mostCommands)
    return Info(
      version: GuestText.clean(version),
      commands: commands.compactMap { command in
        guard let name = command["name"]?.text, let isEnabled = command["enabled"]?.truth else {
          return nil
        }
        return Info.Command(name: GuestText.clean(name), isEnabled: isEnabled)
      })
  }

  package static func interfaces(_ json: JSON) -> [Interface]? {
    json.elements?.prefix(mostInterfaces).compactMap { interface in
      guard let name = interface["name"]?.text else { return nil }
      let addresses = (interface["ip-addresses"]?.elements ?? []).prefix(mostAddresses)
      return Interface(
        name: GuestText.clean(name),
        hardwareAddress: interface["hardware-address"]?.text.map(GuestText.clean),
        addresses: addresses.compactMap { address in
          guard let text = address["ip-address"]?.text, let prefix = address["prefix"]?.whole
          else { return nil }
          return Interface.Address(text: GuestText.clean(text), prefix: prefix)
        })
    }
  }

  package static func isFrozen(_ json: JSON) -> Bool? {
    switch json.text {
    case "frozen": true
    case "thawed": false
    default: nil
    }
  }

  /// The file systems that were frozen or thawed.
  package static func count(_ json: JSON) -> Int? {
    json.whole.flatMap { $0 >= 0 ? $0 : nil }
  }

  package static func process(_ json: JSON) -> Int? { json["pid"]?.whole }

  package static func execution(_ json: JSON) -> Execution? {
    guard let hasEnded = json["exited"]?.truth,
      let output = Base64.decode(json["out-data"]?.text ?? ""),
      let errors = Base64.decode(json["err-data"]?.text ?? "")
    else { return nil }
    return Execution(
      hasEnded: hasEnded, status: hasEnded ? json["exitcode"]?.whole : nil,
      signal: hasEnded ? json["signal"]?.whole : nil, output: output, errors: errors,
      isTruncated: json["out-truncated"]?.truth == true || json["err-truncated"]?.truth == true)
  }
}
