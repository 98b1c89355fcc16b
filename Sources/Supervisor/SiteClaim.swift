import Brokering
import CarrelBase
import FoundationEssentials
import LinuxSystem

/// Why a state or runtime directory cannot be used.
public struct SiteClaimError: CarrelError {
  public enum Kind: Hashable, Sendable {
    /// Another `carreld` serves from it.
    case inUse
    /// Desktops run in it that belong to another state directory.
    case foreignDesktops
    /// A file in it cannot be read or written.
    case storage
  }

  public let kind: Kind
  public let context: String
  public let cause: (any Error)?

  public init(_ kind: Kind, _ context: String, cause: (any Error)? = nil) {
    self.kind = kind
    self.context = context
    self.cause = cause
  }
}

/// The claim of one `carreld` to its two directories, for as long as it lives; the
/// kernel lets go when the process ends, however it ends.
///
/// Both are locked, and both carry the name of the site: the desktops that run in a
/// runtime directory are unknown to every other state directory, and a `carreld` that
/// does not know a desktop deletes it.
public struct SiteClaim: Sendable {
  private let locks: [FileDescriptor]

  public init(
    stateDirectory: String, runtimeDirectory: String
  ) async throws(SiteClaimError) {
    locks = [
      try Self.lock(stateDirectory + "/carreld.lock", "state directory \(stateDirectory)"),
      try Self.lock(runtimeDirectory + "/runtime.lock", "runtime directory \(runtimeDirectory)"),
    ]
    let site = try Self.site(of: stateDirectory)
    try await Self.take(runtimeDirectory, for: site)
  }

  private static func lock(
    _ path: String, _ what: String
  ) throws(SiteClaimError) -> FileDescriptor {
    let file: FileDescriptor
    do {
      file = try FileDescriptor.open(path, [.writable, .create])
    } catch {
      throw storage(path, error)
    }
    do {
      try file.lock(exclusive: true)
    } catch {
      guard error.kind == .wouldBlock else { throw storage(path, error) }
      let holder = (try? file.read(upTo: 16)).map { String(decoding: $0, as: UTF8.self) } ?? ""
      throw SiteClaimError(
        .inUse,
        "another carreld (process \(holder.isEmpty ? "unknown" : holder)) uses the \(what): "
          + "end it, or name another directory with --state-directory and --runtime-directory")
    }
    // A hint for people.
    try? file.setSize(0)
    try? file.writeAll(Array("\(ProcessHandle.current.identifier)".utf8))
    return file
  }

  private static func storage(_ path: String, _ error: any Error) -> SiteClaimError {
    SiteClaimError(
      .storage, "\(path) cannot be used: check its owner and mode, and the disk's free space",
      cause: error)
  }
}

// MARK: - Marks

/// What `site.json` in either directory says.
private struct SiteMark: Codable, Hashable {
  var version = 1
  let site: String
  /// Where its records are, for people.
  let stateDirectory: String
}

extension SiteClaim {
  private static let markLimit = 16 << 10

  private static func markPath(in directory: String) -> String { directory + "/site.json" }

  /// The site of a state directory; a new one where it has none yet.
  private static func site(of stateDirectory: String) throws(SiteClaimError) -> SiteMark {
    let path = markPath(in: stateDirectory)
    var name = (0..<4).map { _ in String(UInt32.random(in: 0 ... .max), radix: 16) }
      .joined(separator: "-")
    if Files.exists(path) {
      do {
        name = try read(path).site
      } catch {
        throw SiteClaimError(
          .storage,
          "\(path), which names this site, cannot be read: end all desktops and remove it",
          cause: error)
      }
    }
    let mark = SiteMark(site: name, stateDirectory: stateDirectory)
    try write(mark, to: path)
    return mark
  }

  /// Marks the runtime directory as the site's, unless desktops of another run there.
  private static func take(
    _ runtimeDirectory: String, for mark: SiteMark
  ) async throws(SiteClaimError) {
    let path = markPath(in: runtimeDirectory)
    if Files.exists(path) {
      let present = try? read(path)
      if present?.site != mark.site {
        try await refuseDesktops(in: runtimeDirectory, of: present?.stateDirectory)
      }
    }
    try write(mark, to: path)
  }

  private static func refuseDesktops(
    in runtimeDirectory: String, of stateDirectory: String?
  ) async throws(SiteClaimError) {
    let running: [DesktopID]
    do {
      running = try await Remains.running(in: runtimeDirectory)
    } catch {
      throw storage(runtimeDirectory, error)
    }
    guard !running.isEmpty else { return }
    let names = running.map(\.rawValue).joined(separator: ", ")
    let owner = stateDirectory.map { "the site in \($0)" } ?? "another site"
    throw SiteClaimError(
      .foreignDesktops,
      "in the runtime directory \(runtimeDirectory) run desktops of \(owner): \(names); start "
        + "carreld with that --state-directory, or name another --runtime-directory")
  }

  private static func read(_ path: String) throws -> SiteMark {
    try JSONDecoder().decode(SiteMark.self, from: Data(try Files.read(path, limit: markLimit)))
  }

  private static func write(_ mark: SiteMark, to path: String) throws(SiteClaimError) {
    if (try? read(path)) == mark { return }
    do {
      try Files.replace(path, with: try JSONEncoder().encode(mark))
    } catch {
      throw storage(path, error)
    }
  }
}
