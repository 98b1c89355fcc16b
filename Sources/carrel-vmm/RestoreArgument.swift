import ArgumentParser
import LinuxSystem
import Machine
import Snapshot

/// `FILE[,remove=on|off]`.
struct RestoreArgument {
  let path: String
  let isRemoved: Bool

  init(parsing argument: String) throws {
    let form = "FILE[,remove=on|off]"
    let parts = argument.split(separator: ",", maxSplits: 1, omittingEmptySubsequences: false)
    path = String(parts[0])
    var isRemoved = false
    if parts.count > 1 {
      let values = try KeyedArgument(String(parts[1]), ["remove"], of: "restore", form: form)
      guard let value = values["remove"], ["on", "off"].contains(value) else {
        throw values.lacks("remove is on or off")
      }
      isRemoved = value == "on"
    }
    guard !path.isEmpty else {
      throw ValidationError("a saved machine has a file: give \(form).")
    }
    self.isRemoved = isRemoved
  }

  /// Opens and checks all of it. A snapshot that completes others has them beside it, each
  /// named after its UUID.
  func load() throws -> SavedMachine {
    let directory = path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
    let chain = try SnapshotChain(path: path) { identifier in
      MachineUUID(bytes: identifier).map { "\(directory)\($0).snapshot" }
    }
    try chain.verify()
    return try SavedMachine(chain)
  }

  /// The machine is about to run: nobody else may go on from there.
  func consume() throws(SystemError) {
    if isRemoved { try Files.remove(path, durably: true) }
  }
}
