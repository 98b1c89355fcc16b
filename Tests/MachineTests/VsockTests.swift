import DeviceModel
import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("A guest's sockets on the host")
struct VsockTests {
  /// What the device would be, and the sockets it has.
  private final class Device {
    let files: TemporaryDirectory
    let lock = Lock()
    let sockets: StreamSockets
    let events = Guarded<[String]>([])
    /// Under the lock.
    private var streams: [any HostStream] = []
    let room = Guarded(1 << 20)

    init() throws {
      files = try TemporaryDirectory()
      sockets = try StreamSockets(path: files.path("vsock"))
      sockets.onConnect = { [unowned self] stream, port in
        watch(stream)
        note("connect \(port)")
      }
      try sockets.start(lock: lock)
    }

    deinit { sockets.close() }

    func watch(_ stream: any HostStream) {
      let (events, room) = (events, room)
      func note(_ text: String) { events.change { $0.append(text) } }
      stream.onOpen = { note("open") }
      stream.onReceive = { note(String(decoding: $0, as: UTF8.self)) }
      stream.onWritable = { note("writable") }
      stream.onEnd = { note($0 ? "gone" : "end") }
      stream.room = { room.withLock { $0 } }
      streams.append(stream)
    }

    private func note(_ text: String) { events.change { $0.append(text) } }

    func await(_ texts: [String]) throws {
      try eventually("\(texts)") { events.withLock { $0 } == texts }
    }

    /// The latest.
    var stream: any HostStream {
      get throws { try #require(lock.withLock { streams.last }) }
    }
  }

  @Test("one that connects and names a port talks with the guest, byte for byte")
  func fromHost() throws {
    let device = try Device()
    let program = try UnixSocket.connect(to: device.files.path("vsock"), kind: .stream)
    try program.descriptor.writeAll(Array("CONNECT 1234\nearly".utf8))
    try device.await(["connect 1234", "early"])
    let stream = try device.stream
    device.lock.withLock {
      stream.accept(hostPort: 99)
      #expect(stream.write(Array("hello".utf8)) == 5)
    }
    var got: [UInt8] = []
    while got.count < 11 { got += try program.receive().bytes }
    #expect(String(decoding: got, as: UTF8.self) == "OK 99\nhello")
    program.shutDownSending()
    try device.await(["connect 1234", "early", "end"])
    device.lock.withLock {
      #expect(stream.write(Array("after".utf8)) == 5)
      stream.finish()
    }
    got = []
    while let part = try? program.receive(), !part.isEnd { got += part.bytes }
    #expect(String(decoding: got, as: UTF8.self) == "after")
  }

  @Test("a guest's connection reaches who listens, and learns when nobody does")
  func fromGuest() throws {
    let device = try Device()
    device.lock.withLock { device.watch(device.sockets.connect(toHostPort: 80)) }
    try device.await(["gone"])
    let listener = try UnixListener(at: device.files.path("vsock_81"), kind: .stream)
    device.lock.withLock { device.watch(device.sockets.connect(toHostPort: 81)) }
    try device.await(["gone", "open"])
    let program = try listener.accept()
    try program.descriptor.writeAll(Array("served".utf8))
    try device.await(["gone", "open", "served"])
    let stream = try device.stream
    device.lock.withLock { stream.close() }
    #expect(try program.receive().isEnd)
  }

  @Test("a program that does not read holds the guest up, and one guest's room the program")
  func pressure() throws {
    let device = try Device()
    device.room.change { $0 = 0 }
    let program = try UnixSocket.connect(to: device.files.path("vsock"), kind: .stream)
    try program.descriptor.writeAll(Array("CONNECT 1\nwaits".utf8))
    try device.await(["connect 1"])
    let stream = try device.stream
    let part = [UInt8](repeating: 7, count: 64 << 10)
    var sent = 0
    var taken = part.count
    while taken == part.count {
      taken = device.lock.withLock { stream.write(part) }
      sent += taken
    }
    #expect(sent < 64 << 20)
    var got = 0
    while got < sent { got += try program.receive().bytes.count }
    try eventually("room for the guest") { device.events.withLock { $0.contains("writable") } }
    #expect(!device.events.withLock { $0.contains("waits") })
    device.room.change { $0 = 100 }
    device.lock.withLock { stream.hasRoom() }
    try eventually("what waited") { device.events.withLock { $0.contains("waits") } }
  }

  @Test("a guest that sent all it had and left is heard to its end, however slowly")
  func lastWords() throws {
    let device = try Device()
    let program = try UnixSocket.connect(to: device.files.path("vsock"), kind: .stream)
    try program.descriptor.writeAll(Array("CONNECT 1\n".utf8))
    try device.await(["connect 1"])
    let stream = try device.stream
    let bytes = (0..<4 << 20).map { UInt8(truncatingIfNeeded: $0 >> 8 ^ $0) }
    // More than the socket takes: the rest waits in the stream when it is closed.
    let sent = device.lock.withLock { () -> Int in
      var sent = 0
      var taken = 1
      while taken > 0 {
        taken = stream.write(Array(bytes[sent...]))
        sent += taken
      }
      stream.close()
      return sent
    }
    var got: [UInt8] = []
    while let part = try? program.receive(), !part.isEnd { got += part.bytes }
    #expect(got.count == sent && got == Array(bytes.prefix(sent)))
  }

  @Test(
    "what is no request is hung up on",
    arguments: ["GET / HTTP/1.1\n", "CONNECT\n", "CONNECT x\n", "CONNECT 1 2\n", "CONNECT -1\n"])
  func strangers(line: String) throws {
    let device = try Device()
    let program = try UnixSocket.connect(to: device.files.path("vsock"), kind: .stream)
    try program.descriptor.writeAll(Array(line.utf8))
    #expect((try? program.receive().isEnd) != false)
    let endless = try UnixSocket.connect(to: device.files.path("vsock"), kind: .stream)
    try endless.descriptor.writeAll(Array(repeating: 0x41, count: 100))
    #expect((try? endless.receive().isEnd) != false)
    #expect(device.events.withLock { $0.isEmpty })
  }
}
