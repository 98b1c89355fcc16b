import ArgumentParser
import CarrelBase
import Machine

/// `user[,host=off]|tap:NAME|socket:PATH|none[,mac=ADDRESS][,queues=N]`.
struct NetworkArgument {
  let network: MachineConfiguration.Network

  init(parsing argument: String) throws {
    let parts = OptionText.parts(of: argument)
    var network = MachineConfiguration.Network(try Self.backend(parts.first ?? ""))
    for option in parts.dropFirst() {
      let pair = option.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      let value = pair.count == 2 ? String(pair[1]) : ""
      switch pair.first {
      case "mac":
        guard let address = MACAddress(value) else {
          throw ValidationError(
            "mac=\(value) is no address of a network card; give one such as 52:54:00:12:34:56.")
        }
        network.address = address
      case "queues":
        guard let queues = Int(value) else {
          throw ValidationError("queues=\(value) is no number.")
        }
        network.queues = queues
      case "host":
        guard network.backend == .user else {
          throw ValidationError("host= says what user reaches; leave it out with other networks.")
        }
        guard value == "on" || value == "off" else {
          throw ValidationError("host=\(value) does not exist; give on or off.")
        }
        network.reachesHost = value == "on"
      default:
        throw ValidationError(
          "there is no network option '\(option)'; there are mac=ADDRESS, queues=N and host=on|off."
        )
      }
    }
    self.network = network
  }

  private static func backend(_ text: String) throws -> MachineConfiguration.Network.Backend {
    let pair = text.split(separator: ":", maxSplits: 1).map(String.init)
    switch (pair.first, pair.count) {
    case ("none", 1): return .none
    case ("user", 1): return .user
    case ("tap", 2): return .tap(pair[1])
    case ("socket", 2): return .socket(pair[1])
    default:
      throw ValidationError(
        "there is no network '\(text)'; give user, tap:NAME, socket:PATH or none.")
    }
  }
}
