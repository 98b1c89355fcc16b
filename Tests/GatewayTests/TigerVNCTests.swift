import Gateway
import LinuxSystem
import TestSupport
import Testing

@Suite(
  "TigerVNC's viewer",
  .needs("xtigervncviewer", "Xvfb"), .serialized)
struct TigerVNCTests {
  @Test("logs in over VeNCrypt X509Plain, shows the screen and types")
  func x509Plain() async throws {
    try await withGateway { running in
      let screen = try await VirtualScreen()
      defer { screen.end() }
      let viewer = try screen.viewer(
        running, ["-SecurityTypes", "X509Plain"], user: "alice", password: "wonderland")
      defer { viewer.terminate() }
      let display = try await running.displays.process(0)
      _ = try await display.wait { $0.updateRequests >= 2 }
      #expect(try await running.broker.arrival(0).login.user.rawValue == "alice")
      #expect(
        try await display.wait { $0.messages.count >= 3 }.messages == [
          "name desk of alice", "status 40 Starting your desktop",
          "attach /run/carrel/alice.display",
        ])
      try await screen.type("x")
      #expect(try await display.wait { !$0.keys.isEmpty }.keys == [0x78])
      viewer.terminate()
      _ = try await display.wait { $0.hasEnded }
      #expect(
        try await running.broker.departure(0).reason == "the viewer closed the connection")
    }
  }

  @Test("logs in with a ticket inside TLS")
  func x509Vnc() async throws {
    try await withGateway { running in
      let screen = try await VirtualScreen()
      defer { screen.end() }
      let viewer = try screen.viewer(
        running, ["-SecurityTypes", "X509Vnc"], user: "", password: "sesame23")
      defer { viewer.terminate() }
      _ = try await running.displays.process(0).wait { $0.updateRequests >= 2 }
      #expect(running.broker.record.withLock { $0.ticket } == nil, "a ticket works once")
    }
  }

  @Test("is told when the password is wrong")
  func wrongPassword() async throws {
    try await withGateway { running in
      let screen = try await VirtualScreen()
      defer { screen.end() }
      let viewer = try screen.viewer(
        running, ["-SecurityTypes", "X509Plain", "-AlertOnFatalError=0", "-ReconnectOnError=0"],
        user: "alice",
        password: "looking-glass")
      let log = try await viewer.log()
      #expect(log.contains("wrong user name or password"), "\(log)")
      #expect(running.displays.count == 0)
    }
  }
}

/// An X server without a screen, for one test.
final class VirtualScreen {
  private let server: ChildProcess
  private let number: String

  init() async throws {
    let (reading, writing) = try UnixSocket.pair(kind: .stream)
    var request = ChildProcess.Request(
      "/usr/bin/Xvfb",
      ["-displayfd", "3", "-screen", "0", "800x600x24", "-nolisten", "tcp", "-noreset"])
    request.descriptors = [3: writing.descriptor, 2: try .open("/dev/null", .writable)]
    server = try ChildProcess(request)
    // Xvfb writes its number, then a line's end, once it accepts clients.
    let text = try await blocking {
      var text: [UInt8] = []
      while !text.contains(UInt8(ascii: "\n")) {
        let message = try reading.receive()
        if message.isEnd { throw SystemError(code: 2, "start Xvfb") }
        text += message.bytes
      }
      return text
    }
    number = ":" + String(decoding: text, as: UTF8.self).filter(\.isNumber)
  }

  func end() {
    try? server.handle.send(.terminate)
    _ = try? server.wait()
  }

  func viewer(
    _ running: RunningGateway, _ options: [String], user: String, password: String
  ) throws -> RunningViewer {
    try RunningViewer(
      arguments: options + [
        "-X509CA", running.directory.certificatePath, "-Log", "*:stderr:30",
        "localhost::\(running.port)",
      ],
      environment: [
        "DISPLAY": number, "VNC_USERNAME": user, "VNC_PASSWORD": password,
        "HOME": running.directory.path, "PATH": "/usr/bin:/bin",
      ])
  }

  /// Presses a key in the viewer's window.
  func type(_ key: String) async throws {
    var request = ChildProcess.Request(
      "/usr/bin/xdotool",
      ["search", "--sync", "--onlyvisible", "--name", "stub", "windowfocus", "key", key])
    request.environment = ["DISPLAY": number]
    let xdotool = try ChildProcess(request)
    let exit = try await blocking { try xdotool.wait() }
    #expect(exit == .exited(0))
  }
}

final class RunningViewer {
  private let process: ChildProcess
  private let output: UnixSocket

  init(arguments: [String], environment: [String: String]) throws {
    let (reading, writing) = try UnixSocket.pair(kind: .stream)
    var request = ChildProcess.Request("/usr/bin/xtigervncviewer", arguments)
    request.environment = environment
    request.descriptors = [1: writing.descriptor, 2: writing.descriptor]
    process = try ChildProcess(request)
    output = reading
  }

  func terminate() {
    try? process.handle.send(.terminate)
    _ = try? process.wait()
  }

  /// Everything it wrote, once it ended, in one line: it breaks lines anywhere.
  func log() async throws -> String {
    let output = self.output
    return try await blocking {
      var text: [UInt8] = []
      while let message = try? output.receive(), !message.isEnd { text += message.bytes }
      return String(decoding: text, as: UTF8.self).split { $0.isWhitespace }.joined(separator: " ")
    }
  }
}
