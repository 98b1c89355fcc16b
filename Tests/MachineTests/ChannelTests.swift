import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("The host's end of channels")
struct ChannelTests {
  /// A channel whose device takes as much as it is told to.
  private final class Setting {
    let files: TemporaryDirectory
    let channel: ChannelSocket
    let lock = Lock()
    let received = Guarded<[UInt8]>([])
    let room = Guarded(1 << 20)
    let connections = Guarded<[Bool]>([])
    let writable = Guarded(0)

    init() throws {
      files = try TemporaryDirectory()
      channel = try ChannelSocket(.init(name: "test", path: files.path("channel")))
      channel.onReceive = { [received] bytes in received.change { $0 += bytes } }
      channel.room = { [room] in room.withLock { $0 } }
      channel.onWritable = { [writable] in writable.change { $0 += 1 } }
      channel.onConnectionChange = { [connections, unowned channel] in
        let isConnected = channel.isConnected
        connections.change { $0.append(isConnected) }
      }
      try channel.start(lock: lock)
    }

    deinit { channel.close() }

    func connect() throws -> UnixSocket {
      try UnixSocket.connect(to: files.path("channel"), kind: .stream)
    }

    func waitForConnections(_ expected: [Bool]) {
      connections.wait(until: { $0.count >= expected.count }) {
        #expect($0 == expected)
      }
    }
  }

  @Test("one program at a time is served, the next when it has gone", .timeLimit(.minutes(1)))
  func turns() throws {
    let setting = try Setting()
    let first = try setting.connect()
    setting.waitForConnections([true])
    let second = try setting.connect()
    try second.descriptor.writeAll([9])
    try first.descriptor.writeAll([1, 2])
    setting.received.wait(until: { $0.count >= 2 }) { #expect($0 == [1, 2]) }
    first.shutDown()
    setting.waitForConnections([true, false, true])
    setting.received.wait(until: { $0.count >= 3 }) { #expect($0 == [1, 2, 9]) }
  }

  @Test("a program that goes is noticed though its bytes were not taken", .timeLimit(.minutes(1)))
  func full() throws {
    let setting = try Setting()
    setting.room.change { $0 = 0 }
    var peer: UnixSocket? = try setting.connect()
    setting.waitForConnections([true])
    try peer?.descriptor.writeAll([1])
    peer = nil
    setting.waitForConnections([true, false])
    #expect(setting.received.withLock { $0 } == [])
  }

  @Test("bytes wait until the device has room for them", .timeLimit(.minutes(1)))
  func room() throws {
    let setting = try Setting()
    setting.room.change { $0 = 0 }
    let peer = try setting.connect()
    try peer.descriptor.writeAll([1, 2, 3])
    setting.waitForConnections([true])
    #expect(setting.received.withLock { $0 } == [])
    setting.room.change { $0 = 10 }
    setting.channel.hasRoom()
    setting.received.wait(until: { $0.count >= 3 }) { #expect($0 == [1, 2, 3]) }
  }

  @Test("a program that reads slowly loses nothing", .timeLimit(.minutes(1)))
  func slow() throws {
    let setting = try Setting()
    #expect(setting.channel.write([1]) == 1, "nobody is there: it is lost")
    let peer = try setting.connect()
    setting.waitForConnections([true])
    let bytes = (0..<4 << 20).map { UInt8(truncatingIfNeeded: $0 >> 8 ^ $0) }
    var sent = 0
    while true {
      let taken = setting.lock.withLock { setting.channel.write(Array(bytes[sent...])) }
      sent += taken
      if taken == 0 { break }
    }
    var received: [UInt8] = []
    while received.count < bytes.count {
      if received.count < sent { received += try peer.receive().bytes }
      // Once all has arrived, there is room, if that was not told yet.
      if received.count == sent, sent < bytes.count {
        setting.writable.wait(until: { $0 > 0 }) { _ in }
      }
      setting.lock.withLock {
        if setting.writable.withLock({ $0 }) > 0, sent < bytes.count {
          setting.writable.change { $0 = 0 }
          sent += setting.channel.write(Array(bytes[sent...]))
        }
      }
    }
    #expect(received == bytes)
  }
}
