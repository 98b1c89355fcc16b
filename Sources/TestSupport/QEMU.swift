import LinuxSystem

/// A QEMU to compare with, under QMP control.
public final class QEMU {
  public struct Failure: Error, CustomStringConvertible {
    public let description: String

    public init(description: String) { self.description = description }
  }

  /// The descriptor numbers that callers may use start here; below are QMP's and the
  /// standard ones.
  public static let firstFreeDescriptor: Int32 = 4

  private let child: ChildProcess
  private let qmp: LineSocket
  private let directory: TemporaryDirectory

  /// Starts QEMU without a window or default devices.
  ///
  /// - Parameter descriptors: what it inherits, for `socket,fd=N` character devices.
  public init(_ arguments: [String], descriptors: [Int32: FileDescriptor] = [:]) throws {
    guard let executable = HostFacilities.executable("qemu-system-x86_64") else {
      throw Failure(description: "qemu-system-x86_64 is not installed")
    }
    directory = try TemporaryDirectory()
    let (ours, theirs) = try UnixSocket.pair(kind: .stream)
    child = try Self.start(executable, arguments, descriptors, control: theirs)
    qmp = LineSocket(ours)
    _ = try qmp.readLine()
    try command("qmp_capabilities")
  }

  /// Their ends of sockets close here, so that a QEMU that dies is noticed.
  private static func start(
    _ executable: String, _ arguments: [String], _ descriptors: [Int32: FileDescriptor],
    control: UnixSocket
  ) throws -> ChildProcess {
    var request = ChildProcess.Request(
      executable,
      [
        "-nodefaults", "-display", "none", "-chardev", "socket,id=control,fd=3",
        "-mon", "chardev=control,mode=control",
      ] + arguments)
    request.descriptors = descriptors
    request.descriptors[3] = control.descriptor
    return try ChildProcess(request)
  }

  deinit {
    try? child.handle.send(.kill)
    _ = try? child.wait()
  }

  /// Executes a QMP command; `arguments` is a JSON object.
  public func command(_ name: String, _ arguments: String = "{}") throws {
    try qmp.send("{\"execute\": \"\(name)\", \"arguments\": \(arguments)}\n")
    while true {
      let line = try qmp.readLine()
      if line.contains("\"return\"") { return }
      if line.contains("\"error\"") { throw Failure(description: "QMP: \(line)") }
    }
  }

  /// What is on the screen, as a binary PPM.
  public func screendump() throws -> [UInt8] {
    try command("screendump", "{\"filename\": \"\(directory.path("screen.ppm"))\"}")
    return try directory.read("screen.ppm")
  }
}

/// Lines over a stream socket.
public final class LineSocket {
  private let socket: UnixSocket
  private var pending: [UInt8] = []

  public init(_ socket: UnixSocket) { self.socket = socket }

  public func send(_ text: String) throws {
    try socket.descriptor.writeAll(Array(text.utf8))
  }

  public func readLine() throws -> String {
    while true {
      if let end = pending.firstIndex(of: 0x0A) {
        let line = String(decoding: pending[..<end], as: UTF8.self)
        pending.removeSubrange(...end)
        return line
      }
      let message = try socket.receive()
      guard !message.isEnd else { throw QEMU.Failure(description: "QEMU went away") }
      pending += message.bytes
    }
  }
}
