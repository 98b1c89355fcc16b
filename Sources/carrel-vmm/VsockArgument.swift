import ArgumentParser
import Machine

/// `cid=NUMBER,socket=PATH`.
struct VsockArgument {
  let vsock: MachineConfiguration.Vsock

  init(parsing argument: String) throws {
    var values: [String: String] = [:]
    for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
      let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard pair.count == 2, ["cid", "socket"].contains(pair[0]) else {
        throw ValidationError("there is no vsock option '\(part)'; give cid=NUMBER,socket=PATH.")
      }
      values[String(pair[0])] = String(pair[1])
    }
    guard let identifier = values["cid"].flatMap({ UInt32($0) }), let path = values["socket"],
      !path.isEmpty
    else {
      throw ValidationError(
        "vsock has the guest's number and a socket: give cid=NUMBER,socket=PATH.")
    }
    vsock = MachineConfiguration.Vsock(identifier: identifier, path: path)
  }
}
