import LinuxSystem
import TestSupport
import Testing

@Suite("A carreld that runs out of files", .needs("prlimit"))
struct OpenFilesTests {
  private func carreld(
    in directory: TemporaryDirectory, soft: Int, hard: Int
  ) throws -> LoggedProcess {
    let configuration = """
      state_directory: \(directory.path("state"))
      runtime_directory: \(directory.path("run"))
      gateway:
        listen: ["127.0.0.1:0"]
        web: []
        handshake_seconds: 60
        connections_before_login: 1000
        connections_before_login_per_address: 1000
      programs:
        vmm: \(Programs.built("carrel-vmm"))
        display: \(Programs.built("carrel-display"))

      """
    let file = try directory.write(Array(configuration.utf8), to: "carrel.yaml")
    return try LoggedProcess(
      "/usr/bin/prlimit",
      ["--nofile=\(soft):\(hard)", Programs.built("carreld"), "--config", file])
  }

  private func port(of daemon: LoggedProcess) async throws -> Int {
    let isListening = try await blocking { daemon.says("listening for viewers") }
    #expect(isListening, "\(daemon.text)")
    let address = try #require(daemon.text.split(separator: "address=127.0.0.1:").last)
    return try #require(Int(address.prefix { $0.isNumber }))
  }

  /// CPU time in clock ticks.
  private func time(of process: ProcessHandle) throws -> Int {
    let text = String(decoding: try Files.read("/proc/\(process.identifier)/stat"), as: UTF8.self)
    let fields = text.split(separator: ")").last?.split(separator: " ") ?? []
    return fields.count > 12 ? (Int(fields[11]) ?? 0) + (Int(fields[12]) ?? 0) : 0
  }

  @Test("it takes all that the host allows")
  func raised() async throws {
    let directory = try TemporaryDirectory()
    let daemon = try carreld(in: directory, soft: 64, hard: 2000)
    _ = try await port(of: daemon)
    let limits = String(
      decoding: try Files.read("/proc/\(daemon.handle.identifier)/limits"), as: UTF8.self)
    let line = limits.split(separator: "\n").first { $0.hasPrefix("Max open files") } ?? ""
    #expect(line.split(separator: " ").dropFirst(3).prefix(2) == ["2000", "2000"])
  }

  @Test("it says so once, waits without spinning, and goes on when some are free")
  func exhausted() async throws {
    let directory = try TemporaryDirectory()
    let daemon = try carreld(in: directory, soft: 100, hard: 100)
    let port = try await port(of: daemon)
    var clients: [RawClient] = []
    for _ in 0..<120 { clients.append(try RawClient(port: port)) }
    let hasSaid = try await blocking { daemon.says("viewers have to wait") }
    #expect(hasSaid, "\(daemon.text)")
    #expect(daemon.text.contains("LimitNOFILE"))

    // It tries again each second.
    let before = try time(of: daemon.handle)
    try await Task.sleep(for: .seconds(3))
    #expect(try time(of: daemon.handle) - before < 100, "a third of one core")

    clients.forEach { $0.close() }
    let goesOn = try await blocking { daemon.says("viewers are let in again") }
    #expect(goesOn)
    let late = try RawClient(port: port)
    #expect(try await late.take(12).count == 12)
    #expect(daemon.text.split(separator: "have to wait").count == 2, "once")
  }
}
