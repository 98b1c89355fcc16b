import LinuxSystem

/// A network of a test's own, in which there is a loopback and what the test makes, and
/// which goes with the test.
public enum OwnNetwork {
  /// Runs `body` on a thread in a new network, where processes and threads that it starts
  /// are, too. Root only.
  public static func run<Value: Sendable>(
    _ body: @escaping @Sendable () throws -> Value
  ) throws -> Value {
    let outcome = Guarded<Result<Value, any Error>?>(nil)
    let thread = try Thread(name: "network") {
      let result = Result {
        try NetworkNamespace.enterNew()
        return try body()
      }
      outcome.withLock { $0 = result }
    }
    thread.join()
    guard let result = outcome.withLock({ $0 }) else { throw NeverRan() }
    return try result.get()
  }

  private struct NeverRan: Error {}
}
