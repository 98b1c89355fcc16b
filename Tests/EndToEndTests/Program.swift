import LinuxSystem
import TestSupport
import Testing

/// The suites of this target, one test at a time: each starts whole machines.
@Suite(
  .serialized, .needsKVM)
enum EndToEnd {}

/// The guest.
enum DemoDesktop {
  static func path() throws -> String {
    let path = Programs.repository + "/build/demo-desktop/carrel-demo.elf"
    guard Files.exists(path) else {
      throw SiteError("the demo desktop \(path) is missing: 'make build' makes it")
    }
    return path
  }
}

enum Program {
  /// Runs a program to its end, away from Swift's task pool.
  static func run(
    _ program: String, _ arguments: [String], in directory: TemporaryDirectory, _ number: Int = 0,
    input: String = ""
  ) async throws -> Outcome {
    try await blocking {
      let files = try ["input", "output", "complaint"].map {
        try directory.write(Array($0 == "input" ? input.utf8 : "".utf8), to: ".\($0)-\(number)")
      }
      var request = ChildProcess.Request(program, arguments)
      request.descriptors = [
        0: try FileDescriptor.open(files[0]), 1: try FileDescriptor.open(files[1], .writeOnly),
        2: try FileDescriptor.open(files[2], .writeOnly),
      ]
      let exit = try ChildProcess(request).wait()
      let texts = try files.map { String(decoding: try Files.read($0), as: UTF8.self) }
      for file in files { try Files.remove(file) }
      return Outcome(exit: exit, output: texts[1], complaint: texts[2])
    }
  }
}

/// Runs something that blocks on a thread of its own: Swift's task pool has as many
/// threads as the host has cores.
func blocking<Value: Sendable>(
  _ body: @escaping @Sendable () throws -> Value
) async throws -> Value {
  try await withCheckedThrowingContinuation { continuation in
    do {
      _ = try Thread(name: "test-blocking") { continuation.resume(with: Result(catching: body)) }
    } catch {
      continuation.resume(throwing: error)
    }
  }
}

/// Asks again and again: programs of another process offer nothing to wait for.
func eventually(
  _ what: String, within seconds: Int = 60, _ isTrue: () async throws -> Bool
) async throws {
  let deadline = ContinuousClock.now.advanced(by: .seconds(seconds))
  while try await !isTrue() {
    guard ContinuousClock.now < deadline else {
      throw SiteError("\(what): not within \(seconds) s")
    }
    try await Task.sleep(for: .milliseconds(20))
  }
}
