import ControlAPI
import Foundation

/// Names for the shell to complete, from the running `carreld`; none if it does
/// not answer.
enum Completions {
  @Sendable static func pools(_ words: [String], _ index: Int, _ prefix: String) -> [String] {
    names("pool", "list")
  }

  @Sendable static func users(_ words: [String], _ index: Int, _ prefix: String) -> [String] {
    names("user", "list")
  }

  @Sendable static func desktops(_ words: [String], _ index: Int, _ prefix: String) -> [String] {
    names("desktop", "list")
  }

  @Sendable static func sessions(_ words: [String], _ index: Int, _ prefix: String) -> [String] {
    names("session", "list")
  }

  /// Completion is synchronous and the client is not: ask through ourselves.
  private static func names(_ arguments: String...) -> [String] {
    struct Named: Decodable {
      let name: String?
      let id: String?
    }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    process.arguments = arguments + ["--json"]
    let output = Pipe()
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    guard (try? process.run()) != nil,
      let data = try? output.fileHandleForReading.readToEnd(),
      let things = try? JSONDecoder().decode([Named].self, from: data)
    else { return [] }
    return things.compactMap { $0.name ?? $0.id }
  }
}
