import DeviceModel
import Devices
import Testing

@Suite struct VirtioConsoleTests {
  /// A program of the host's, which can refuse bytes.
  private final class HostEnd: ChannelBackend {
    var onReceive: (([UInt8]) -> Void)?
    var room: (() -> Int)?
    var onWritable: (() -> Void)?
    var onConnectionChange: (() -> Void)?
    var isConnected = false { didSet { onConnectionChange?() } }
    var capacity = Int.max
    var taken: [UInt8] = []
    var timesToldOfRoom = 0

    func write(_ bytes: [UInt8]) -> Int {
      let count = min(capacity, bytes.count)
      taken += bytes.prefix(count)
      if capacity != .max { capacity -= count }
      return count
    }

    func hasRoom() { timesToldOfRoom += 1 }
  }

  private final class Setting {
    let agent = HostEnd()
    let clipboard = HostEnd()
    let device: VirtioConsole
    let bench: VirtioBench
    let queues: [DriverQueue]

    init(state: VirtioConsole.State? = nil, features: UInt64 = 1 << 1) {
      device = VirtioConsole(
        [
          .init(name: "org.qemu.guest_agent.0", backend: agent),
          .init(name: "com.redhat.spice.0", backend: clipboard),
        ], state: state)
      bench = VirtioBench(device)
      bench.negotiate(1 << 32 | features)
      queues = (0..<8).map { [bench] in
        DriverQueue(bench, $0, packed: false, base: 0x1_0000 + UInt64($0) * 0x8000)
      }
      bench.status = 0x0F
    }

    func control(_ port: UInt32, _ event: UInt16, _ value: UInt16) {
      queues[3].put(port, at: 0x6_0000)
      queues[3].put(event, at: 0x6_0004)
      queues[3].put(value, at: 0x6_0006)
      queues[3].add([.readable(0x6_0000, 8)])
      queues[3].kick()
      _ = queues[3].takeUsed()
    }

    /// The next control message: port, event, value, and text.
    func message() -> ([Int], String)? {
      queues[2].add([.writable(0x6_1000, 64)])
      queues[2].kick()
      guard let used = queues[2].takeUsed() else { return nil }
      let numbers = [
        Int(queues[2].get(0x6_1000, UInt32.self)), Int(queues[2].get(0x6_1004, UInt16.self)),
        Int(queues[2].get(0x6_1006, UInt16.self)),
      ]
      let text = bench.memory.bytes[0x6_1008..<0x6_1000 + Int(used.written)]
      return (numbers, String(decoding: text, as: UTF8.self))
    }

    /// The first channel, found and opened by a program of the guest.
    func open() {
      agent.isConnected = true
      control(0, 0, 1)
      control(1, 3, 1)
      control(1, 6, 1)
      // Two ports, a name, a connection.
      for _ in 0..<4 { _ = message() }
    }

    func send(_ bytes: [UInt8]) {
      bench.memory.bytes.replaceSubrange(0x7_0000..<0x7_0000 + bytes.count, with: bytes)
      queues[5].add([.readable(0x7_0000, bytes.count)])
      queues[5].kick()
    }

    func receive() -> [UInt8]? {
      queues[4].add([.writable(0x7_8000, 8)])
      queues[4].kick()
      return queues[4].takeUsed().map {
        Array(bench.memory.bytes[0x7_8000..<0x7_8000 + Int($0.written)])
      }
    }
  }

  @Test("ports are added, named, and said to be connected when they are")
  func control() throws {
    let setting = Setting()
    #expect(setting.bench.transport.read(offset: 0x2004, width: 4) == 3)
    setting.control(0, 0, 1)
    #expect(setting.message()?.0 == [1, 1, 1])
    #expect(setting.message()?.0 == [2, 1, 1])
    setting.clipboard.isConnected = true
    setting.control(2, 3, 1)
    let name = try #require(setting.message())
    #expect(name.0 == [2, 7, 1] && name.1 == "com.redhat.spice.0\0")
    #expect(setting.message()?.0 == [2, 6, 1])
    setting.clipboard.isConnected = false
    #expect(setting.message()?.0 == [2, 6, 0])
    setting.control(9, 3, 1)
    setting.control(0, 6, 1)
    setting.agent.isConnected = true
    #expect(setting.queues[2].takeUsed() == nil, "the driver does not know that port yet")
  }

  @Test("bytes go both ways, as far as the other side takes them")
  func data() {
    let setting = Setting()
    setting.open()
    setting.agent.capacity = 3
    setting.send([1, 2, 3, 4, 5])
    #expect(setting.agent.taken == [1, 2, 3] && setting.queues[5].takeUsed() == nil)
    setting.agent.capacity = .max
    setting.agent.onWritable?()
    #expect(setting.agent.taken == [1, 2, 3, 4, 5] && setting.queues[5].takeUsed() != nil)
    #expect(setting.agent.room?() == 4096)
    setting.agent.onReceive?(Array(1...20))
    let pieces = [setting.receive(), setting.receive(), setting.receive()]
    #expect(pieces == [Array(1...8), Array(9...16), Array(17...20)])
  }

  @Test("a port that is closed takes nothing; a full one says when there is room")
  func room() {
    let setting = Setting()
    #expect(setting.agent.room?() == 0)
    setting.open()
    #expect(setting.agent.timesToldOfRoom == 1)
    setting.agent.onReceive?(Array(repeating: 7, count: 9000))
    #expect(setting.agent.room?() == 0)
    _ = setting.receive()
    #expect(setting.agent.timesToldOfRoom == 2 && setting.agent.room?() == 8)
    setting.control(1, 6, 0)
    #expect(setting.agent.room?() == 0 && setting.receive() == nil)
  }

  @Test("what nobody reads any more is dropped, and its buffers go back")
  func disconnected() {
    let setting = Setting()
    setting.open()
    setting.agent.capacity = 0
    setting.send([1, 2, 3])
    setting.agent.isConnected = false
    #expect(setting.queues[5].takeUsed() != nil && setting.agent.taken == [])
    setting.send([4])
    #expect(setting.queues[5].takeUsed() != nil)
  }

  @Test("what a program wrote before it went still reaches the guest")
  func lastWords() {
    let setting = Setting()
    setting.open()
    setting.agent.onReceive?([1, 2, 3])
    setting.agent.isConnected = false
    #expect(setting.receive() == [1, 2, 3])
  }

  @Test("what is sent in one go is bounded, and all of it arrives")
  func large() {
    let setting = Setting()
    setting.open()
    // One buffer of 64 KiB, many times over.
    setting.queues[5].add(
      Array(repeating: .readable(0x7_0000, 64 << 10), count: 6), indirect: false)
    setting.queues[5].kick()
    #expect(setting.agent.taken.count == 6 * 64 << 10 && setting.queues[5].takeUsed() != nil)
    for _ in 0..<4 {
      setting.queues[5].add([.readable(0x7_0000, 64 << 10), .readable(0x7_0000, 64 << 10)])
    }
    setting.queues[5].kick()
    #expect(setting.agent.taken.count == (6 + 8) * 64 << 10)
  }

  @Test("a restored port goes on with what was half sent")
  func restored() {
    let setting = Setting()
    setting.open()
    setting.agent.capacity = 2
    setting.send([1, 2, 3, 4])
    let host = HostEnd()
    host.isConnected = true
    let device = VirtioConsole(
      [.init(name: "a", backend: host), .init(name: "b", backend: HostEnd())],
      state: setting.device.saveState())
    let bench = VirtioBench(
      device, memory: setting.bench.memory, state: setting.bench.transport.saveState())
    bench.transport.resume()
    #expect(host.taken == [3, 4])
  }

  @Test("a driver that asks without end and reads nothing is stopped")
  func flood() {
    let setting = Setting()
    for _ in 0..<300 where !setting.bench.needsReset { setting.control(0, 0, 1) }
    #expect(setting.bench.needsReset)
  }
}
