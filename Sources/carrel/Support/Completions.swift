import ControlAPI
import Foundation

/// Names for the shell to complete, from the running `carreld`; none if it does
/// not answer.
enum Completions {
  @Sendable static func pools(_ words: [String], _ index: Int, _ prefix: String) -> [String] {
    names(of: "pool", words)
  }

  @Sendable static func users(_ words: [String], _ index: Int, _ prefix: String) -> [String] {
    names(of: "user", words)
  }

  @Sendable static func desktops(_ words: [String], _ index: Int, _ prefix: String) -> [String] {
    names(of: "desktop", words)
  }

  @Sendable static func images(_ words: [String], _ index: Int, _ prefix: String) -> [String] {
    names(of: "image", words)
  }

  /// Of the desktop that was named before.
  @Sendable static func snapshots(_ words: [String], _ index: Int, _ prefix: String) -> [String] {
    guard index > 0, index <= words.count else { return [] }
    return names(of: "snapshot", words, plain(words[index - 1]))
  }

  @Sendable static func sessions(_ words: [String], _ index: Int, _ prefix: String) -> [String] {
    names(of: "session", words)
  }

  /// Completion is synchronous and the client is not: ask through ourselves.
  private static func names(
    of kind: String, _ words: [String], _ owner: String? = nil
  ) -> [String] {
    struct Named: Decodable {
      let name: String?
      let id: String?
    }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    process.arguments =
      [kind, "list", "--json"] + [owner].compactMap { $0 }
      + (socket(in: words).map { ["--socket", $0] } ?? [])
    let output = Pipe()
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    guard (try? process.run()) != nil,
      let data = try? output.fileHandleForReading.readToEnd(),
      let things = try? JSONDecoder().decode([Named].self, from: data)
    else { return [] }
    return things.compactMap { $0.name ?? $0.id }
  }

  /// What was typed after `--socket`.
  private static func socket(in words: [String]) -> String? {
    let option = "--socket="
    if let word = words.last(where: { $0.hasPrefix(option) && $0 != option }) {
      return plain(String(word.dropFirst(option.count)))
    }
    guard let index = words.lastIndex(of: "--socket"), index + 1 < words.count else { return nil }
    let value = plain(words[index + 1])
    return value.isEmpty || value.hasPrefix("-") ? nil : value
  }

  /// The shell has not looked at the words yet.
  private static func plain(_ word: String) -> String {
    let text = word.filter { !"\"'\\".contains($0) }
    guard text.hasPrefix("~/"), let home = ProcessInfo.processInfo.environment["HOME"] else {
      return text
    }
    return home + text.dropFirst()
  }
}
