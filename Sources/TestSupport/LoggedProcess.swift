import LinuxSystem

/// A program that is watched through what it says on standard output and error.
/// Killed when released.
public final class LoggedProcess: Sendable {
  private let child: ChildProcess
  private let output: UnixSocket
  private let said = Guarded("")

  public init(
    _ program: String, _ arguments: [String], environment: [String: String]? = nil
  ) throws(SystemError) {
    let (reading, writing) = try UnixSocket.pair(kind: .stream)
    var request = ChildProcess.Request(program, arguments)
    request.environment = environment
    request.descriptors = [
      0: try FileDescriptor.open("/dev/null"), 1: writing.descriptor, 2: writing.descriptor,
    ]
    child = try ChildProcess(request)
    output = reading
  }

  deinit {
    try? child.handle.send(.kill)
    _ = try? child.wait()
  }

  public var handle: ProcessHandle { child.handle }
  public var text: String { said.withLock { $0 } }

  /// Blocks until it has said that since its start; false when it ended without.
  public func says(_ text: String) -> Bool {
    while !self.text.contains(text) {
      guard let message = try? output.receive(), !message.isEnd else { return false }
      said.withLock { $0 += String(decoding: message.bytes, as: UTF8.self) }
    }
    return true
  }

  /// Blocks until it ends; everything it said is in `text` then.
  public func wait() throws(SystemError) -> ChildProcess.Exit {
    while let message = try? output.receive(), !message.isEnd {
      said.withLock { $0 += String(decoding: message.bytes, as: UTF8.self) }
    }
    return try child.wait()
  }
}
