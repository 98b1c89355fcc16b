import LinuxSystem

/// Runs something that blocks on a thread of its own: Swift's task pool has as many
/// threads as the host has cores, and the gateway needs them.
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
