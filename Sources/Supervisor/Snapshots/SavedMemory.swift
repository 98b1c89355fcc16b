import Brokering
import Glibc
import LinuxSystem

/// A memory that a VMM saved, by what names its file, and those that it needs.
struct SavedMemory: Codable, Hashable, Sendable {
  var version = 1
  let memory: String
  /// The first is whole, each other is what differs from the one before.
  var bases: [String] = []
  /// Whether it stays as long as its VMM runs, though no snapshot has it.
  var isKept = false

  var all: [String] { bases + [memory] }
}

/// What VMMs and desktops that are suspended need of memories that were saved, besides
/// snapshots.
///
/// A VMM knows what its guest wrote since it saved its memory last, under which name, and
/// saves only that when it is told the name again. Told another, it saves all: what is
/// written down here may be late, and is never wrong.
extension SnapshotShelf {
  private static let lastName = "memory-saved.json"
  private static let chainName = "suspended-bases.json"

  private var last: String { "\(directory.state)/\(Self.lastName)" }

  private var chain: String { "\(directory.state)/\(Self.chainName)" }

  static func isMemoryRecord(_ name: String) -> Bool { [lastName, chainName].contains(name) }

  private func load(_ path: String) -> SavedMemory? {
    guard let saved = directory.load(SavedMemory.self, from: path), saved.version == 1 else {
      return nil
    }
    return saved
  }

  // MARK: The next base

  /// What the desktop's VMM saved last while it ran on.
  private func lastSaved() -> SavedMemory? { load(last) }

  func noteSaved(_ saved: SavedMemory) throws { try directory.store(saved, at: last) }

  /// More differences than these under one that goes to a backup would take longer to go on from.
  private static let mostForBackup = 8
  /// VMMs refuse 64 files; on the host, many small ones do no harm.
  private static let most = 32

  /// What a memory that is saved now may be told by its difference from.
  func nextBase(forBackup isBackup: Bool) -> SavedMemory? {
    guard let saved = lastSaved(), isBase(saved, forBackup: isBackup) else { return nil }
    return saved
  }

  /// Whether all of it is there, and neither many differences nor, for a backup, large ones:
  /// more than half of what the whole memory has.
  func isBase(_ saved: SavedMemory, forBackup isBackup: Bool) -> Bool {
    guard saved.bases.count < (isBackup ? Self.mostForBackup : Self.most) else { return false }
    var sizes: [UInt64] = []
    for name in saved.all {
      guard let file = try? FileDescriptor.open(memory(name)) else { return false }
      sizes.append(file.storedBytes)
    }
    return !isBackup || sizes.dropFirst().reduce(0, +) <= sizes[0] / 2
  }

  // MARK: What suspended desktops need

  /// Of what the desktop goes on from; `nil` when that is whole. It has a name of its own as
  /// well: what is written down is of no other file.
  func suspendedMemory() -> SavedMemory? {
    guard let saved = load(chain), Files.areSame(memory(saved.memory), directory.suspended)
    else { return nil }
    return saved
  }

  /// Says of a desktop whose directory is being made what it goes on from, and gives that its
  /// name.
  static func noteSuspended(_ saved: SavedMemory, in state: String) throws {
    let name = "\(state)/\(memoryFile(saved.memory))"
    guard link("\(state)/\(DesktopDirectory.suspendedName)", name) == 0 else {
      throw SystemError(code: errno, "link \(name)")
    }
    try Records.store(saved, at: "\(state)/\(chainName)")
  }

  /// Has the desktop go on from a memory that is beside it. From then on it is suspended.
  func suspend(to saved: SavedMemory) throws {
    if !saved.bases.isEmpty { try directory.store(saved, at: chain) }
    guard link(memory(saved.memory), directory.suspended) == 0 else {
      throw SystemError(code: errno, "link \(memory(saved.memory)) to \(directory.suspended)")
    }
  }

  // MARK: Sweeping

  /// What must stay though no snapshot may have it. Removes word of what is over.
  func memoriesInUse() throws(SystemError) -> Set<String> {
    var needed: Set<String> = []
    if let saved = lastSaved(), saved.isKept { needed.formUnion(saved.all) }
    if let saved = suspendedMemory() {
      needed.formUnion(saved.all)
    } else {
      try Files.remove(chain)
    }
    return needed
  }

  /// No VMM runs: what one saved is no base any more.
  func endRun() throws {
    let names = try DesktopDirectory.names(in: directory.state)
    guard names.contains(where: { Self.isMemoryRecord($0) || Self.memoryName(in: $0) != nil })
    else { return }
    try Files.remove(last)
    try sweep()
  }
}

extension Files {
  /// Whether both are there, and one file.
  static func areSame(_ first: String, _ second: String) -> Bool {
    // SAFETY: stat is a plain C structure that the call fills or leaves.
    var (one, other) = (stat(), stat())
    return stat(first, &one) == 0 && stat(second, &other) == 0
      && one.st_dev == other.st_dev && one.st_ino == other.st_ino
  }
}

extension Supervisor {
  /// Removes what a VMM that is gone had for its next backup.
  func tidyMemory(of desktop: DesktopID) {
    guard machines[desktop] == nil else { return }
    giveUpBase(of: desktop)
  }

  /// The next backup of the desktop begins anew.
  func giveUpBase(of desktop: DesktopID) {
    // Whatever is under way ends with this, too.
    guard makings[desktop] == nil, !deletions.contains(desktop), tidyings[desktop] == nil else {
      return
    }
    let shelf = SnapshotShelf(directory: directory(of: desktop))
    tidyings[desktop] = Task {
      do {
        try await offPool { try shelf.endRun() }
      } catch {
        logger.warning(
          "saved memory not tidied: \(error)", metadata: ["desktop": "\(desktop)"])
      }
      tidyings[desktop] = nil
    }
  }

  /// Returns when nothing is being tidied. Nothing else looks at the files meanwhile.
  func awaitTidying(of desktop: DesktopID) async {
    while let tidying = tidyings[desktop] { await tidying.value }
  }
}
