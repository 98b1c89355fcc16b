import Brokering
import Glibc
import LinuxSystem

/// The two directories of one desktop, and the one owner of every file name in them:
/// what lives as long as the VMM (sockets, records, log) and what outlives the host's
/// power (the disk and the variables of UEFI).
public struct DesktopDirectory: Hashable, Sendable {
  public let desktop: DesktopID
  /// Runtime files.
  public let runtime: String
  /// Kept files.
  public let state: String
  /// Where the site's images are, and templates'.
  let images: String
  let templates: String

  package init(desktop: DesktopID, runtimeRoot: String, stateRoot: String) {
    self.desktop = desktop
    runtime = "\(runtimeRoot)/desktops/\(desktop.rawValue)"
    state = "\(stateRoot)/desktops/\(desktop.rawValue)"
    images = ImageDirectory.root(stateRoot)
    templates = TemplateDirectory.root(stateRoot)
  }

  // MARK: Written by the VMM

  /// Who the VMM is, written when it starts.
  public var identity: String { runtime + "/vmm.json" }
  /// Locked for as long as the VMM lives.
  public var lock: String { runtime + "/vmm.lock" }
  /// Why it ended by itself.
  public var exit: String { runtime + "/exit.json" }
  /// Where displays connect.
  public var displayLink: String { runtime + "/display" }
  /// QMP.
  public var control: String { runtime + "/control" }
  /// Where the channel of the guest's agent listens.
  public var agent: String { runtime + "/agent" }
  public var screenshot: String { runtime + "/screenshot.png" }

  // MARK: Written by the supervisor

  /// What was last started here.
  public var launch: String { runtime + "/launch.json" }
  /// Standard output and error of every VMM that ran here.
  public var log: String { runtime + "/log" }
  /// Names the template that the desktop was cloned from.
  var template: String { state + "/template" }
  /// Where the images may be that its own are based on.
  var bases: [String] { [images, templates] }
  /// What the guest is told, as files so that nothing stands on a command line.
  public var userFile: String { runtime + "/user" }
  public var keyboardFile: String { runtime + "/keyboard" }
  public var desktopFile: String { runtime + "/desktop" }
  /// There from when the desktop became somebody's until it begins anew. Its memory does not
  /// outlive this directory, but for what is saved, which says so itself.
  var session: String { runtime + "/session" }
  /// Whether a user's session ever ran in it.
  var hasSession: Bool { Files.exists(session) }
  /// The desktop's own disk, when it is no overlay.
  var copiedDisk: String { "\(state)/\(DiskLayers.copyName)" }
  /// The variables of the desktop's UEFI, made by its VMM.
  public var variables: String { state + "/variables.fd" }
  /// Where the desktop goes on, after it was suspended.
  public var suspended: String { "\(state)/\(Self.suspendedName)" }
  static let suspendedName = "suspended"
  /// Whether the desktop goes on from there, however its VMM ended: that wrote the file with
  /// the guest standing, and removes it before the guest runs.
  var isSuspended: Bool { Files.exists(suspended) }
  /// There while a clone's network cable is to be plugged in.
  var unplugged: String { runtime + "/unplugged" }
  /// There while the guest's file systems may be frozen for a snapshot.
  var frozen: String { runtime + "/frozen" }
  /// What a VMM writes before that is whole.
  var suspendedDraft: String { suspended + ".new" }
  /// What a backup of the desktop says about itself, while one is made.
  var backupManifest: String { "\(state)/\(BackupManifest.fileName)" }
  var diskDraft: String { copiedDisk + ".new" }

  /// The longest path that fits in a Unix socket's address.
  static let socketPathLimit = 107

  /// From now on what is saved of the desktop holds a user's session.
  func noteSession() throws(SystemError) {
    try Files.replace(session, with: [], durably: false)
  }

  /// Gives what was saved up, with what its VMM noted beside it.
  func removeSuspended(durably: Bool = false) throws(SystemError) {
    for path in [suspendedDraft, SnapshotShelf.workingSet(of: suspended)] { try Files.remove(path) }
    try Files.remove(suspended, durably: durably)
  }

  /// Makes both directories.
  func create() throws(SystemError) {
    for path in [runtime, state] {
      if let end = path.lastIndex(of: "/") { try Files.makeDirectory(String(path[..<end])) }
      try Files.makeDirectory(path)
    }
  }

  /// Removes what an earlier VMM left and a new one will write.
  func clearTraces() throws(SystemError) {
    for path in [identity, exit, displayLink, control, agent, screenshot, frozen, unplugged] {
      try Files.remove(path)
    }
  }

  /// Removes the desktop's disk, the newest of its images first: none ever lacks its base.
  func removeDisks() throws(SystemError) {
    let disks = try DiskLayers(in: state)
    for layer in disks.layers.reversed() { try Files.remove(disks.path(layer)) }
  }

  /// Removes both directories with all that is in them.
  func delete() throws(SystemError) {
    try Self.removeTree(runtime)
    try Self.removeTree(state)
  }

  /// Every desktop that has a directory under either root.
  static func all(runtimeRoot: String, stateRoot: String) throws(SystemError) -> [DesktopID] {
    var found: Set<DesktopID> = []
    for root in [runtimeRoot, stateRoot] {
      for name in try names(in: root + "/desktops") {
        if let id = try? DesktopID(checking: name) { found.insert(id) }
      }
    }
    return found.sorted()
  }

  /// The entries of a directory; none when it is not there.
  static func names(in path: String) throws(SystemError) -> [String] {
    guard let directory = opendir(path) else {
      if errno == ENOENT { return [] }
      throw SystemError(code: errno, "list \(path)")
    }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      // SAFETY: readdir's names end with NUL within d_name, and live until the next call.
      let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names
  }

  /// Desktops' directories are one level deep; a directory inside is not ours.
  static func removeTree(_ path: String) throws(SystemError) {
    for name in try names(in: path) { try Files.remove("\(path)/\(name)") }
    guard rmdir(path) == 0 || errno == ENOENT else {
      throw SystemError(code: errno, "remove directory \(path)")
    }
  }
}
