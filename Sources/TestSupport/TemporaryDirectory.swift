import Glibc
import LinuxSystem

/// A directory of a test's own, removed with everything in it when released.
public final class TemporaryDirectory: Sendable {
  public let path: String

  public init() throws(SystemError) {
    var template = Array("/tmp/carrel-test-XXXXXX".utf8CString)
    // SAFETY: mkdtemp writes only the six X of the NUL-terminated array it is given.
    guard template.withUnsafeMutableBufferPointer({ $0.baseAddress.flatMap(mkdtemp) }) != nil else {
      throw SystemError(code: errno, "make a temporary directory")
    }
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Programs that use it end with it: whoever starts some that outlive him, as a supervisor
  /// does, is not there to end them.
  deinit {
    for program in HostProcess.all(mentioning: path) { try? program.handle?.send(.kill) }
    let removal = try? ChildProcess(ChildProcess.Request("/bin/rm", ["-rf", path]))
    _ = try? removal?.wait()
  }

  /// The path of an entry.
  public func path(_ name: String) -> String { "\(path)/\(name)" }

  /// Writes a file and returns its path.
  @discardableResult
  public func write(_ bytes: some Collection<UInt8>, to name: String) throws(SystemError) -> String
  {
    let file = try FileDescriptor.open(path(name), [.writable, .create, .truncate])
    try file.writeAll(bytes)
    return path(name)
  }

  public func read(_ name: String) throws(SystemError) -> [UInt8] { try Files.read(path(name)) }

  /// Runs shell commands in the directory and returns their exit status (128 and the
  /// signal's number after a signal) and everything they printed.
  public func run(_ commands: String) throws(SystemError) -> (status: Int, output: String) {
    let log = try FileDescriptor.open(path(".output"), [.writable, .create, .truncate])
    var request = ChildProcess.Request("/bin/sh", ["-c", commands])
    request.directory = path
    request.descriptors = [1: log, 2: log]
    let status =
      switch try ChildProcess(request).wait() {
      case .exited(let code): Int(code)
      case .signalled(let signal): 128 + Int(signal.number)
      }
    return (status, String(decoding: try read(".output"), as: UTF8.self))
  }
}
