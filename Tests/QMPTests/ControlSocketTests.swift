import LinuxSystem
import TestSupport
import Testing

@Suite("control socket of a real machine", .needsKVM)
struct ControlSocketTests {
  @Test(
    "QEMU's own client library drives it",
    .needsPython)
  func pythonLibrary() throws {
    let python = try #require(Programs.python)
    let directory = try TemporaryDirectory()
    let result = try directory.run(
      """
      set -e
      \(Programs.built("carrel-vmm")) run --memory 64M --name tested --control control \
        >log 2>&1 & machine=$!
      trap 'kill $machine 2>/dev/null' EXIT
      for try in $(seq 100); do [ -S control ] && break; sleep 0.05; done
      timeout 60 \(python) \(Programs.repository)/Tests/Tools/drive-qmp.py control . || { cat log; exit 1; }
      wait $machine
      trap - EXIT
      [ ! -e control ]
      """)
    #expect(result.status == 0, "\(result.output)")
    #expect(result.output.contains("driven"))
  }

  /// What arrives up to the end of a line.
  func line(_ socket: UnixSocket) throws -> String {
    var bytes: [UInt8] = []
    while bytes.last != 0x0A {
      let message = try socket.receive()
      try #require(!message.isEnd, "the connection ended after \(bytes.count) bytes")
      bytes += message.bytes
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  @Test("garbage is answered, a flood is shed, and others are served all the while")
  func hostileClients() throws {
    let directory = try TemporaryDirectory()
    var request = ChildProcess.Request(
      Programs.built("carrel-vmm"),
      ["run", "--memory", "64M", "--control", directory.path("control")])
    request.directory = directory.path
    request.parentDeathSignal = .kill
    let machine = try ChildProcess(request)
    defer { try? machine.handle.send(.kill) }
    let good = try UnixSocket.connect(
      to: directory.path("control"), kind: .stream, offeredBy: machine.handle)
    #expect(try line(good).contains("QMP"))

    let rude = try UnixSocket.connect(to: directory.path("control"), kind: .stream)
    _ = try line(rude)
    try rude.send(Array("GET / HTTP/1.1\r\n{{{\"\n".utf8))
    #expect(try line(rude).contains("GenericError"))

    // Asks a lot and reads nothing: it is closed before much memory is used.
    let flood = try UnixSocket.connect(to: directory.path("control"), kind: .stream)
    let question = Array(repeating: Array("{\"execute\":\"x\"}\n".utf8), count: 4096).flatMap { $0 }
    #expect(throws: SystemError.self) {
      for _ in 0..<1000 { try flood.send(question) }
    }

    try good.send(Array("{\"execute\":\"qmp_capabilities\",\"id\":1}".utf8))
    #expect(try line(good).contains("\"id\": 1"))
    try good.send(Array("{\"execute\":\"quit\"}".utf8))
    #expect(try machine.wait() == .exited(0))
    #expect(!Files.exists(directory.path("control")))
  }
}
