import Foundation
import SiteConfiguration

/// Where things usually are.
enum Places {
  static var defaultConfiguration: String? {
    let path = "/etc/carrel/carrel.yaml"
    return access(path, F_OK) == 0 ? path : nil
  }

  static var state: String {
    if getuid() == 0 { return "/var/lib/carrel" }
    return (variable("XDG_STATE_HOME") ?? home + "/.local/state") + "/carrel"
  }

  static var runtime: String {
    if getuid() == 0 { return "/run/carrel" }
    // Not a directory inside one in /tmp: `prepare` makes sure of the last one only.
    return variable("XDG_RUNTIME_DIR").map { $0 + "/carrel" } ?? "/tmp/carrel-\(getuid())"
  }

  static func absolute(_ path: String) -> String {
    path.hasPrefix("/") ? path : FileManager.default.currentDirectoryPath + "/" + path
  }

  /// A program of ours: a path as it is; a name beside carreld, then on PATH.
  static func program(_ name: String) -> String? {
    if name.contains("/") { return isProgram(name) ? absolute(name) : nil }
    let own = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    let paths = (variable("PATH") ?? "/usr/bin:/bin").split(separator: ":").map(String.init)
    return ([own.deletingLastPathComponent().path] + paths)
      .map { "\($0)/\(name)" }.first(where: isProgram)
  }

  private static func isProgram(_ path: String) -> Bool { access(path, X_OK) == 0 }

  private static var home: String { NSHomeDirectory() }

  private static func variable(_ name: String) -> String? {
    let value = ProcessInfo.processInfo.environment[name]
    return value?.isEmpty == false ? value : nil
  }
}

/// The directories of one carreld, and the only place that knows their files' names.
struct SiteDirectory {
  let state: String
  let runtime: String

  init(_ configuration: CarrelConfiguration) {
    state = configuration.stateDirectory
    runtime = configuration.runtimeDirectory
  }

  var database: String { state + "/carrel.db" }
  var certificates: String { state + "/gateway" }
  var controlSocket: String { runtime + "/control.sock" }
  var simulation: String { runtime + "/simulated" }

  /// Makes what is missing; nobody else may enter either.
  func prepare() throws(DaemonError) {
    for path in [state, runtime] { try Self.makePrivate(path) }
  }

  private static func makePrivate(_ path: String) throws(DaemonError) {
    do {
      try FileManager.default.createDirectory(
        atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    } catch {
      throw DaemonError(
        .directory,
        "the directory \(path) cannot be made: check the directory above it, or name "
          + "another with --state-directory and --runtime-directory", cause: error)
    }
    var status = stat()
    // SAFETY: lstat fills the structure given or fails.
    guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
      throw DaemonError(.directory, "\(path) is not a directory: move it away")
    }
    guard status.st_uid == geteuid() else {
      throw DaemonError(
        .directory,
        "the directory \(path) belongs to another user: change its owner, or name "
          + "another directory")
    }
    guard status.st_mode & 0o077 == 0 || chmod(path, 0o700) == 0 else {
      throw DaemonError(
        .directory, "the directory \(path) is open to others and cannot be closed: chmod 700")
    }
  }
}
