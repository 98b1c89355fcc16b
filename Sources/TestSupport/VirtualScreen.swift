import LinuxSystem

/// An X server without a screen, for viewers with windows.
public final class VirtualScreen {
  public let display: String
  private let process: ChildProcess

  public init() throws {
    let (mine, theirs) = try UnixSocket.pair(kind: .stream)
    var request = ChildProcess.Request(
      HostFacilities.executable("Xvfb") ?? "Xvfb",
      ["-displayfd", "3", "-screen", "0", "1280x1024x24", "-nolisten", "tcp", "-r", "-noreset"])
    request.descriptors = [3: theirs.descriptor]
    process = try ChildProcess(request)
    var number: [UInt8] = []
    while !number.contains(0x0A) { number += try mine.receive(capacity: 16).bytes }
    display = ":" + String(decoding: number, as: UTF8.self).filter(\.isNumber)
  }

  deinit {
    try? process.handle.send(.terminate)
    _ = try? process.wait()
  }

  public func start(_ program: String, _ arguments: [String]) throws -> ChildProcess {
    var request = ChildProcess.Request(
      HostFacilities.executable(program) ?? program, arguments)
    request.environment = ["DISPLAY": display, "HOME": "/tmp", "PATH": "/usr/bin:/bin"]
    return try ChildProcess(request)
  }
}
