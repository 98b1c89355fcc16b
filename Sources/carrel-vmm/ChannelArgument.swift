import Machine

/// `name=NAME,socket=PATH`.
struct ChannelArgument {
  let channel: MachineConfiguration.Channel

  init(parsing argument: String) throws {
    let values = try KeyedArgument(
      argument, ["name", "socket"], of: "channel", form: "name=NAME,socket=PATH")
    let problem = "a channel has a name and a socket"
    guard let name = values["name"] else { throw values.lacks(problem) }
    channel = MachineConfiguration.Channel(
      name: name, path: try values.path("socket", or: problem))
  }
}
