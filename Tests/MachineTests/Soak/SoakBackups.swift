import TestSupport

/// Backups of a directory's files, which are removed from it and put back.
final class SoakBackups {
  private let files: TemporaryDirectory
  private var repository: TemporaryDirectory
  private(set) var tags: [String] = []

  /// After so many they begin anew, so that a long soak does not fill the disk.
  private static let most = 16

  init(of files: TemporaryDirectory) throws {
    self.files = files
    repository = try TemporaryDirectory()
  }

  private func restic(_ arguments: String) throws {
    try CountingProgram.shell(
      "RESTIC_PASSWORD=secret restic -q -r \(repository.path) \(arguments)", in: files)
  }

  /// - Parameter names: of files; shell patterns, too.
  func add(_ tag: String, _ names: String) throws {
    if tags.count == Self.most { (repository, tags) = (try TemporaryDirectory(), []) }
    if tags.isEmpty { try restic("init") }
    try restic("backup --tag \(tag) \(names)")
    tags.append(tag)
  }

  func restore(_ tag: String) throws { try restic("restore latest --tag \(tag) --target .") }
}
