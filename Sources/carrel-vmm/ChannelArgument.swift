import ArgumentParser
import Machine

/// `name=NAME,socket=PATH`.
struct ChannelArgument {
  let channel: MachineConfiguration.Channel

  init(parsing argument: String) throws {
    var values: [String: String] = [:]
    for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
      let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard pair.count == 2, ["name", "socket"].contains(pair[0]) else {
        throw ValidationError("there is no channel option '\(part)'; give name=NAME,socket=PATH.")
      }
      values[String(pair[0])] = String(pair[1])
    }
    guard let name = values["name"], let path = values["socket"], !path.isEmpty else {
      throw ValidationError("a channel has a name and a socket: give name=NAME,socket=PATH.")
    }
    channel = MachineConfiguration.Channel(name: name, path: path)
  }
}
