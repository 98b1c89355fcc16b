/// What is wrong with an image's structures; who knows the image's path makes a `DiskError`
/// of it.
package struct FormatProblem: Error, Equatable {
  package let kind: DiskError.Kind
  /// What, and what to do about it, to follow "image PATH ".
  package let text: String

  init(_ kind: DiskError.Kind, _ text: String) {
    self.kind = kind
    self.text = text
  }

  /// A contradiction within the image.
  static func corrupt(_ text: String) -> FormatProblem {
    FormatProblem(
      .corrupt, "is corrupt: \(text); restore it from a backup, or see what qemu-img check says")
  }
}

extension DiskError {
  init(_ path: String, _ problem: FormatProblem) {
    self.init(kind: problem.kind, context: "image \(path) \(problem.text)")
  }
}

/// `problem` of one table or header, as an error about the image at `path`.
func explaining<Result>(
  _ path: String, _ body: () throws(FormatProblem) -> Result
) throws(DiskError) -> Result {
  do {
    return try body()
  } catch {
    throw DiskError(path, error)
  }
}
