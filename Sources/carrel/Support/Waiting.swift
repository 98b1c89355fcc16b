import ControlAPI
import ControlClient
import Foundation

/// `--no-wait`.
enum Waiting {
  private static let interval = Duration.milliseconds(100)

  /// Asks again and again until `isDone`, telling how far it is. A failure that
  /// `problem` sees in an answer ends it.
  static func until<Answer: Sendable>(
    seconds: Int, ask: () async throws -> Answer, problem: (Answer) -> String?,
    progress: (Answer) -> Void, isDone: (Answer) -> Bool
  ) async throws -> Answer {
    let clock = ContinuousClock()
    let deadline = clock.now + .seconds(seconds)
    while true {
      let answer = try await ask()
      if isDone(answer) { return answer }
      if let problem = problem(answer) { throw CommandFailure(problem, .host) }
      guard clock.now < deadline else {
        throw CommandFailure(
          "not done after \(seconds) s; carreld goes on with it: see 'carrel status'", .host)
      }
      progress(answer)
      try await Task.sleep(for: interval)
    }
  }

  /// Waits until a desktop is as it was told to be.
  static func untilDesktop(
    _ id: String, _ client: ControlClient, _ terminal: Terminal, _ text: String,
    seconds: Int = 90, problem: (DesktopDocument) -> String? = startProblem,
    isDone: (DesktopDocument) -> Bool
  ) async throws -> DesktopDocument {
    try await until(
      seconds: seconds,
      ask: { () async throws -> DesktopDocument in try await client.get(APIPath("desktops", id)) },
      problem: problem,
      progress: { desktop in
        terminal.showProgress(
          "\(text) \(id)" + (desktop.step.map { ": \($0)" } ?? "")
            + (desktop.waiting.map { ", which waits: \($0)" } ?? ""), done: desktop.percent,
          of: desktop.percent.map { _ in 100 })
      }, isDone: isDone)
  }

  /// How long memory may be short before that is told: what stops gives back its own within
  /// seconds.
  static let patience = Duration.seconds(5)

  /// Waits until a desktop runs, or is seen to wait for memory for some time.
  static func untilRunning(
    _ id: String, _ client: ControlClient, _ terminal: Terminal, _ text: String
  ) async throws -> DesktopDocument {
    let clock = ContinuousClock()
    var since: ContinuousClock.Instant?
    return try await untilDesktop(
      id, client, terminal, text,
      isDone: { desktop in
        guard desktop.waiting != nil else {
          since = nil
          return desktop.power == "running"
        }
        let start = since ?? clock.now
        since = start
        return clock.now - start >= patience
      })
  }

  /// Waits until a thing is gone.
  static func untilGone(
    _ path: APIPath, _ client: ControlClient, _ terminal: Terminal, _ text: String
  ) async throws {
    _ = try await until(
      seconds: 60,
      ask: {
        do {
          _ = try await client.bytes(path)
          return false
        } catch let error as ControlClientError where error.kind == .refused(.notFound) {
          return true
        }
      },
      problem: { _ in nil },
      progress: { _ in terminal.showProgress(text) }, isDone: { $0 })
  }
}
