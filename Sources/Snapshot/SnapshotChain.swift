import DeviceModel

/// A snapshot and those that it completes, the newest first.
public struct SnapshotChain: Sendable {
  /// Where some pages of a memory are.
  public struct Part: Sendable {
    public let file: SnapshotFile
    public let pages: Range<Int>
    /// Of the first of them, in the file.
    public let offset: UInt64
  }

  /// Longer ones are refused.
  public static let longest = 64

  public let files: [SnapshotFile]

  /// - Parameter locate: the path of the snapshot with that identifier.
  /// - Throws: kind `wrongBase` when one that is needed is another or is not there.
  public init(
    path: String, locate: (_ identifier: [UInt8]) -> String?
  ) throws(SnapshotError) {
    var files = [try SnapshotFile(path: path)]
    while let wanted = files[files.count - 1].base {
      guard files.count < Self.longest else {
        throw SnapshotError(
          kind: .wrongBase,
          context: "snapshot \(path) builds upon more than \(Self.longest) others")
      }
      let last = files[files.count - 1]
      guard let next = locate(wanted) else { throw Self.missing(last, nil) }
      let file: SnapshotFile
      do {
        file = try SnapshotFile(path: next)
      } catch  where error.kind == .notFound {
        throw Self.missing(last, error)
      }
      guard file.identifier == wanted else {
        throw SnapshotError(
          kind: .wrongBase,
          context: "snapshot \(last.path) builds upon another snapshot than \(next) is now;"
            + " put the one back that it was made from")
      }
      guard Self.fit(last, file) else {
        throw SnapshotError(
          kind: .wrongBase,
          context: "snapshot \(last.path) and \(next), which it builds upon, are of machines"
            + " with different memory")
      }
      files.append(file)
    }
    self.files = files
  }

  private static func fit(_ file: SnapshotFile, _ base: SnapshotFile) -> Bool {
    file.memories.allSatisfy { base.memory($0.name)?.size == $0.size }
  }

  private static func missing(_ file: SnapshotFile, _ cause: (any Error)?) -> SnapshotError {
    SnapshotError(
      kind: .wrongBase,
      context: "snapshot \(file.path) builds upon one that is not there; put it back, or use"
        + " another snapshot", cause: cause)
  }

  /// The snapshot itself.
  public var newest: SnapshotFile { files[0] }

  /// Checks every page of all files; see `SnapshotFile.verify`.
  public func verify(progress: (UInt64) -> Void = { _ in }) throws(SnapshotError) {
    var before: UInt64 = 0
    for file in files {
      try file.verify { progress(before + $0) }
      before += file.storedBytes
    }
  }

  /// Where a memory's pages are; those that are nowhere are zero. `nil` when the snapshot has
  /// no such memory.
  public func parts(of name: String) -> [Part]? {
    guard let size = newest.memory(name)?.size else { return nil }
    var rest = DirtyPages(pageCount: size / SnapshotFormat.pageSize, allDirty: true)
    var parts: [Part] = []
    for file in files {
      guard let memory = file.memory(name) else { continue }
      var here = rest
      here.formIntersection(memory.stored)
      memory.forEachPiece(of: here) { run, offset in
        parts.append(Part(file: file, pages: run, offset: offset))
      }
      rest.subtract(memory.stored)
      rest.subtract(memory.zero)
    }
    return parts
  }
}
