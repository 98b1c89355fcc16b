import Foundation
import Yams

extension CarrelConfiguration {
  /// Every key there is, as `gateway.listen`.
  public static var keys: [String] { Setting.all.map(\.key) }

  /// The configuration in the file at `path`; keys it leaves out have their defaults.
  public init(contentsOf path: String) throws(ConfigurationError) {
    let text: String
    do {
      text = try String(contentsOfFile: path, encoding: .utf8)
    } catch {
      throw ConfigurationError(
        .unreadable, file: path, line: nil,
        "the configuration file cannot be read: check that it exists, is UTF-8 and may be read by "
          + "the user carreld runs as")
    }
    try self.init(yaml: text, file: path)
  }

  /// The configuration in `yaml`; `file` is for messages.
  public init(yaml: String, file: String) throws(ConfigurationError) {
    self.init()
    guard let root = try Self.compose(yaml, file: file) else { return }
    try apply(root, prefix: "", file: file)
    try checkTogether(file: file)
  }

  private static func compose(
    _ yaml: String, file: String
  ) throws(ConfigurationError) -> Node? {
    do {
      return try Yams.compose(yaml: yaml)
    } catch let error as YamlError {
      throw ConfigurationError(
        .syntax, file: file, line: error.line, "this is not YAML", cause: error)
    } catch {
      throw ConfigurationError(.syntax, file: file, line: nil, "this is not YAML", cause: error)
    }
  }

  private mutating func apply(
    _ node: Node, prefix: String, file: String
  ) throws(ConfigurationError) {
    // Nothing after the colon: a section or value that was commented out.
    if case .scalar(let scalar) = node, scalar.string.isEmpty, prefix.isEmpty { return }
    guard case .mapping(let mapping) = node else {
      let what = prefix.isEmpty ? "the file" : "'\(prefix.dropLast())'"
      throw ConfigurationError(
        .invalidValue, file: file, line: node.mark?.line,
        "\(what) holds no keys: write 'key: value' lines\(prefix.isEmpty ? "" : ", indented, below it")"
      )
    }
    for (keyNode, value) in mapping {
      let key = prefix + (keyNode.scalar?.string ?? "?")
      if let setting = Setting.all.first(where: { $0.key == key }) {
        guard let wanted = setting.apply(&self, value) else { continue }
        throw ConfigurationError(
          .invalidValue, file: file, line: value.mark?.line ?? keyNode.mark?.line,
          "'\(key)' must be \(wanted)")
      } else if Setting.all.contains(where: { $0.key.hasPrefix(key + ".") }) {
        try apply(value, prefix: key + ".", file: file)
      } else {
        throw ConfigurationError(
          .unknownKey, file: file, line: keyNode.mark?.line, "there is no key '\(key)'",
          suggestion: Self.suggestion(for: key))
      }
    }
  }

  private func checkTogether(file: String) throws(ConfigurationError) {
    guard gateway.certificate.isEmpty == gateway.key.isEmpty else {
      throw ConfigurationError(
        .invalidValue, file: file, line: nil,
        "'gateway.certificate' and 'gateway.key' go together: give both or neither")
    }
    guard memory.criticalPercent < memory.watermarkPercent else {
      throw ConfigurationError(
        .invalidValue, file: file, line: nil,
        "'memory.critical_percent' is \(memory.criticalPercent): choose less than "
          + "'memory.watermark_percent', \(memory.watermarkPercent)")
    }
  }

  /// The known key or section that looks most like `key`, if any does.
  private static func suggestion(for key: String) -> String? {
    let sections = Set(
      keys.compactMap { $0.split(separator: ".").dropLast().first.map(String.init) })
    let candidates = (keys + sections.sorted()).map { ($0, Spelling.distance($0, key)) }
    guard let best = candidates.min(by: { $0.1 < $1.1 }), best.1 <= max(2, key.count / 3) else {
      // Right name in the wrong section.
      let last = key.split(separator: ".").last.map(String.init) ?? key
      return keys.first { $0 == last || $0.hasSuffix("." + last) }
    }
    return best.0
  }
}

extension YamlError {
  fileprivate var line: Int? {
    switch self {
    case .scanner(_, _, let mark, _), .parser(_, _, let mark, _), .composer(_, _, let mark, _):
      mark.line
    case .duplicatedKeysInMapping(_, let context): context.mark.line
    default: nil
    }
  }
}

/// How alike two words are.
enum Spelling {
  /// Insertions, deletions, replacements and swaps of neighbours between them.
  static func distance(_ left: String, _ right: String) -> Int {
    let left = Array(left), right = Array(right)
    var rows = [Array(0...right.count)]
    for (i, a) in left.enumerated() {
      var row = [i + 1]
      for (j, b) in right.enumerated() {
        var best = min(rows[i][j + 1] + 1, row[j] + 1, rows[i][j] + (a == b ? 0 : 1))
        if i > 0, j > 0, a == right[j - 1], left[i - 1] == b {
          best = min(best, rows[i - 1][j - 1] + 1)
        }
        row.append(best)
      }
      rows.append(row)
    }
    return rows[left.count][right.count]
  }
}
