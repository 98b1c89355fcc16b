import Glibc
import LinuxSystem
import Testing
import VNCServer

@Suite("Viewers at a port", .timeLimit(.minutes(4)), .serialized)
struct ListenerTests {
  private func connect(to port: UInt16) throws -> TestViewer {
    let viewer = try socket()
    try connect(viewer, to: port)
    return TestViewer(viewer)
  }

  private func socket() throws -> FileDescriptor {
    let raw = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard raw >= 0 else { throw SystemError(code: errno, "make a socket") }
    return FileDescriptor(owning: raw)
  }

  private func connect(_ descriptor: FileDescriptor, to port: UInt16) throws {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    // SAFETY: the kernel reads one sockaddr_in, whose size is passed.
    let status = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Glibc.connect(descriptor.raw, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard status == 0 else { throw SystemError(code: errno, "connect to port \(port)") }
  }

  private func listener(_ machine: FakeMachine, handshakeTime: UInt64? = nil) throws
    -> ViewerListener
  {
    var configuration = ViewerConfiguration()
    configuration.handshakeTime = handshakeTime
    configuration.introductionTime = 20_000_000_000
    let server = machine.server
    return try ViewerListener(at: "127.0.0.1:0", configuration: configuration) {
      try server.connect()
    }
  }

  @Test(
    "a viewer that does not finish its handshake in time is closed",
    arguments: ["", "RFB 003", "RFB 003.008\n", "RFB 003.008\n\u{1}"])
  func slowHandshake(sent: String) throws {
    let machine = try FakeMachine()
    let listener = try listener(machine, handshakeTime: 300_000_000)
    defer { listener.close() }
    let viewer = try connect(to: listener.port)
    try viewer.send(Array(sent.utf8))
    #expect(viewer.isClosed(within: 20000))
  }

  @Test("the time for the handshake ends nothing after it")
  func finishedHandshake() throws {
    let machine = try FakeMachine()
    machine.server.publish(scanout(320, 200))
    let listener = try listener(machine, handshakeTime: 3_000_000_000)
    defer { listener.close() }
    let viewer = try connect(to: listener.port)
    try viewer.handshake()
    #expect(!viewer.isClosed(within: 4000))
  }

  @Test("without descriptors for a viewer the port waits, at rest, until there are some")
  func noDescriptors() throws {
    let machine = try FakeMachine()
    machine.server.publish(scanout(320, 200))
    let listener = try listener(machine)
    defer { listener.close() }
    let client = try socket()
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    var none = limit
    // Below the standard streams: what another thread closes meanwhile is not free either.
    none.rlim_cur = 3
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &none)
    let start = processorTime()
    let isConnected = (try? connect(client, to: listener.port)) != nil
    pause(milliseconds: 500)
    let used = processorTime() - start
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    #expect(isConnected)
    #expect(used < 100_000_000, "\(used / 1000) µs")
    let viewer = TestViewer(client)
    try viewer.handshake()
    #expect(viewer.width == 320)
  }

  private func processorTime() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
