import ArgumentParser
import LinuxSystem
import Machine
import Snapshot

/// `FILE[,remove=on|off][,identity=same|new]`.
struct RestoreArgument {
  let path: String
  let isRemoved: Bool
  /// Which machine it is that goes on.
  let identity: RestoredIdentity

  init(parsing argument: String) throws {
    let form = "FILE[,remove=on|off][,identity=same|new]"
    let parts = argument.split(separator: ",", maxSplits: 1, omittingEmptySubsequences: false)
    path = String(parts[0])
    var isRemoved = false
    var identity = RestoredIdentity.same
    if parts.count > 1 {
      let values = try KeyedArgument(
        String(parts[1]), ["remove", "identity"], of: "restore", form: form)
      if let value = values["remove"] {
        guard ["on", "off"].contains(value) else { throw values.lacks("remove is on or off") }
        isRemoved = value == "on"
      }
      if let value = values["identity"] {
        guard ["same", "new"].contains(value) else {
          throw values.lacks("identity is same or new")
        }
        identity = value == "new" ? .another : .same
      }
    }
    guard !path.isEmpty else {
      throw ValidationError("a saved machine has a file: give \(form).")
    }
    self.isRemoved = isRemoved
    self.identity = identity
  }

  func load() throws -> SavedMachine { try SavedMachine(try open()) }

  /// Opens and checks all of it. A snapshot that completes others has them beside it, each
  /// named after its UUID.
  func open() throws -> SnapshotChain {
    let directory = path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
    let chain = try SnapshotChain(path: path) { identifier in
      MachineUUID(bytes: identifier).map { "\(directory)\($0).snapshot" }
    }
    try chain.verify()
    return chain
  }

  /// The machine is about to run: nobody else may go on from there.
  func consume() throws(SystemError) {
    if isRemoved { try Files.remove(path, durably: true) }
  }
}
