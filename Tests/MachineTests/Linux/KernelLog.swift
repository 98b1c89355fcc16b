import LinuxSystem
import TestSupport
import Testing

/// Lines of a kernel's log that are expected, each with its reason.
///
/// In a text, `*` is anything, or nothing, and `#` a number, decimal or hexadecimal, but what
/// follows a backslash is itself.
struct KnownLine: Sendable {
  let reason: String
  /// Every boot has it.
  let isSure: Bool
  private let pattern: [UInt8]

  init(_ text: String, _ reason: String, isSure: Bool) {
    self.reason = reason
    self.isSure = isSure
    pattern = Array(text.utf8)
  }

  var text: String { String(decoding: pattern, as: UTF8.self) }

  func matches(_ line: [UInt8]) -> Bool { Self.matches(pattern[...], line[...]) }

  private static func matches(_ pattern: ArraySlice<UInt8>, _ line: ArraySlice<UInt8>) -> Bool {
    var (pattern, line) = (pattern, line)
    while let next = pattern.first {
      switch next {
      case UInt8(ascii: "*"):
        let rest = pattern.dropFirst()
        return rest.isEmpty
          || (line.startIndex...line.endIndex).contains { matches(rest, line[$0...]) }
      case UInt8(ascii: "#"):
        let rest = pattern.dropFirst()
        let end = line.firstIndex { !isOfNumber($0) } ?? line.endIndex
        guard end > line.startIndex else { return false }
        return (line.startIndex + 1...end).reversed().contains { matches(rest, line[$0...]) }
      default:
        if next == UInt8(ascii: "\\") { pattern.removeFirst() }
        guard let wanted = pattern.first, line.first == wanted else { return false }
        pattern.removeFirst()
        line.removeFirst()
      }
    }
    return line.isEmpty
  }

  /// Of a decimal or hexadecimal number with its `0x`.
  private static func isOfNumber(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"),
      UInt8(ascii: "A")...UInt8(ascii: "F"), UInt8(ascii: "x"):
      true
    default: false
    }
  }
}

/// One line of what `dmesg -r` writes.
struct KernelLine: Hashable, Sendable {
  /// 0, the worst, to 7.
  let level: Int
  let text: String

  init?(_ raw: Substring) {
    let parts = raw.split(separator: ">", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 2, parts[0].first == "<", let number = Int(parts[0].dropFirst()) else {
      return nil
    }
    level = number & 7
    text = String(parts[1])
  }

  /// Words by which lines of any level tell of trouble.
  private static let trouble = [
    "error", "fail", "unable", "timeout", "timed out", "time out", "invalid", "bogus", "unknown",
    "unsupported", "not ", "cannot", "n't ", "bug", "bad ", "warn", "missing", "conflict",
    "disabl", "ignor", "corrupt", "wrong", "unexpected", "mismatch", "lost", "stall", "skip",
    "reject",
  ]

  /// It is a warning, or worse, or tells of trouble by its words.
  var tellsOfTrouble: Bool {
    guard level > 4 else { return true }
    let words = text.lowercased()
    return Self.trouble.contains { words.contains($0) }
  }
}

/// What a small Linux's kernel may say.
enum KernelLog {
  /// Lines that were known, of any log until now: most of them are the same each time.
  private static let seen = Guarded<Set<KernelLine>>([])

  /// Whether its line is expected: where it tells of trouble, by what explains trouble.
  static func knows(_ line: KernelLine) -> Bool {
    if seen.withLock({ $0.contains(line) }) { return true }
    let text = Array(line.text.utf8)
    let isKnown =
      allTroubles.contains { $0.matches(text) }
      || !line.tellsOfTrouble && news.contains { group in group.contains { $0.matches(text) } }
    if isKnown { seen.change { _ = $0.insert(line) } }
    return isKnown
  }

  /// By subsystem.
  private static let news = [
    start, memory, processors, firmware, buses, input, graphics, storage, network, sound, virtio,
    manyProcessors, debugging,
  ]
  private static let allTroubles = troubles + debuggingTroubles
  static let all = news.joined() + allTroubles
}

extension SmallLinux {
  /// What its kernel said until now. It is all there, or the first line is missing.
  func log() throws -> [KernelLine] {
    let raw = try run("dmesg -r", seconds: 1200)
    let lines = raw.split(separator: "\n").compactMap { KernelLine($0) }
    guard let first = lines.first, first.text.hasPrefix("Linux version") else {
      throw NeverCame(what: "the beginning of the log, which begins with \(raw.prefix(200))")
    }
    return lines
  }

  /// Lines of its kernel's log that nobody expects.
  func unknownLines() throws -> [String] {
    try log().filter { !KernelLog.knows($0) }.map { "<\($0.level)>\($0.text)" }
  }

  /// Fails the test for each line of the kernel's log that is not as it should be.
  func expectKnownLog(sourceLocation: SourceLocation = #_sourceLocation) throws {
    for line in try unknownLines() { Issue.record("\(line)", sourceLocation: sourceLocation) }
  }
}
