import Machine

/// `cid=NUMBER,socket=PATH`.
struct VsockArgument {
  let vsock: MachineConfiguration.Vsock

  init(parsing argument: String) throws {
    let values = try KeyedArgument(
      argument, ["cid", "socket"], of: "vsock", form: "cid=NUMBER,socket=PATH")
    let problem = "vsock has the guest's number and a socket"
    guard let identifier = values["cid"].flatMap({ UInt32($0) }) else {
      throw values.lacks(problem)
    }
    vsock = MachineConfiguration.Vsock(
      identifier: identifier, path: try values.path("socket", or: problem))
  }
}
