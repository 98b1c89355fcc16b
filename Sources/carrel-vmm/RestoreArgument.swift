import ArgumentParser
import CarrelBase
import DeviceModel
import LinuxSystem
import Machine
import Snapshot

/// `FILE[,remove=on|off][,identity=same|new][,check=all|first|only]`.
struct RestoreArgument {
  let path: String
  let isRemoved: Bool
  /// Which machine it is that goes on.
  let identity: RestoredIdentity
  let check: Check

  /// What is checked before the guest runs.
  enum Check: String {
    /// All pages.
    case all
    /// Those that it needs first.
    case first
    /// All, and it does not run.
    case only
  }

  init(parsing argument: String) throws {
    let form = "FILE[,remove=on|off][,identity=same|new][,check=all|first|only]"
    let parts = OptionText.parts(of: argument)
    path = parts[0]
    var (remove, identity) = ("off", "same")
    var check = Check.all
    if parts.count > 1 {
      let values = try KeyedArgument(
        parts: parts.dropFirst(), ["remove", "identity", "check"], of: "restore", form: form)
      remove = values["remove"] ?? remove
      identity = values["identity"] ?? identity
      guard ["on", "off"].contains(remove) else { throw values.lacks("remove is on or off") }
      guard ["same", "new"].contains(identity) else {
        throw values.lacks("identity is same or new")
      }
      guard let known = Check(rawValue: values["check"] ?? check.rawValue) else {
        throw values.lacks("check is all, first or only")
      }
      check = known
      guard check != .only || remove == "off" else {
        throw values.lacks("what is only checked is not removed")
      }
    }
    guard !path.isEmpty else {
      throw ValidationError("a saved machine has a file: give \(form).")
    }
    isRemoved = remove == "on"
    self.check = check
    self.identity = identity == "new" ? .another : .same
  }

  /// A snapshot that was opened.
  struct Loaded {
    let machine: SavedMachine
    /// What is to be checked while the guest runs.
    let unchecked: UncheckedPages?
    let identifier: [UInt8]
  }

  /// Opens it. A snapshot that completes others has them beside it, each named after its UUID.
  private func openChain() throws -> SnapshotChain {
    let directory = path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
    let chain = try SnapshotChain(path: path) { identifier in
      MachineUUID(bytes: identifier).map { "\(directory)\($0).snapshot" }
    }
    return chain
  }

  /// Opens and checks all of it.
  func open() throws -> SnapshotChain {
    let chain = try openChain()
    try chain.verify()
    return chain
  }

  /// Opens it, and checks all of it or what is needed first.
  func load() throws -> Loaded {
    let chain = try openChain()
    let workingSet = workingSet(of: chain.newest)
    var unchecked: UncheckedPages?
    if check != .first {
      try chain.verify()
    } else {
      let first = workingSet?.pages ?? DirtyPages(pageCount: 0)
      unchecked = try chain.verify(first: first, of: Machine.memoryName)
    }
    var machine = try SavedMachine(chain)
    machine.workingSet = workingSet?.pages
    return Loaded(machine: machine, unchecked: unchecked, identifier: chain.newest.identifier)
  }

  private func workingSet(of file: SnapshotFile) -> WorkingSet? {
    do {
      return try WorkingSet(of: file, memory: Machine.memoryName)
    } catch {
      Diagnostics.report("\(error); the machine goes on without it")
      return nil
    }
  }

  /// The machine is about to run: nobody else may go on from there.
  func consume() throws(SystemError) {
    guard isRemoved else { return }
    try Files.remove(WorkingSet.path(of: path))
    try Files.remove(path, durably: true)
  }
}
