import DeviceModel
import Devices
import Testing

@Suite("virtio-vsock")
struct VirtioVsockTests {
  @Test("a guest's program talks with one of the host, to the end of both")
  func fromGuest() throws {
    let card = VsockBench()
    card.send(.request, 1000, 80)
    let stream = try #require(card.host.streams.first)
    #expect(card.host.asked == [80])
    #expect(card.receive() == nil, "nobody has answered")
    stream.onOpen?()
    let response = try #require(card.receive())
    #expect(response.operation == 2 && response.ports == [80, 1000])
    #expect(response.allocated == 65536)

    card.send(.data, 1000, 80, Array("to the host".utf8))
    #expect(stream.taken == Array("to the host".utf8))
    #expect(stream.room?() == 4096, "the guest's buffer")
    stream.onReceive?(Array("to the guest".utf8))
    let data = try #require(card.receive())
    #expect(data.operation == 5 && data.data == Array("to the guest".utf8))
    #expect(data.forwarded == 11)

    card.send(.shutdown, 1000, 80, flags: 2)
    #expect(stream.isFinished && !stream.isClosed)
    stream.onReceive?(Array("last".utf8))
    stream.onEnd?(false)
    #expect(card.receive()?.data == Array("last".utf8))
    let end = try #require(card.receive())
    #expect(end.operation == 4 && end.flags == 2)
    card.send(.shutdown, 1000, 80, flags: 3)
    #expect(card.receive()?.operation == 3)
    #expect(stream.isClosed)
    card.send(.data, 1000, 80, [1])
    #expect(card.receive()?.operation == 3, "no such connection")
  }

  @Test("a program of the host talks with one of the guest")
  func fromHost() throws {
    let card = VsockBench()
    let stream = FakeStream()
    card.host.onConnect?(stream, 22)
    let request = try #require(card.receive())
    #expect(request.operation == 1 && request.ports[1] == 22)
    let port = request.ports[0]
    card.send(.response, 22, port)
    #expect(stream.accepted == [port])
    stream.onReceive?([7, 8, 9])
    #expect(card.receive()?.data == [7, 8, 9])
    card.send(.reset, 22, port)
    #expect(stream.isClosed)

    let refused = FakeStream()
    card.host.onConnect?(refused, 23)
    let second = try #require(card.receive())
    card.send(.reset, 23, second.ports[0])
    #expect(refused.isClosed && refused.accepted.isEmpty)
    #expect(second.ports[0] != port)
  }

  @Test("neither side is sent more than it has room for")
  func credit() throws {
    let card = VsockBench()
    card.send(.request, 1, 2)
    let stream = try #require(card.host.streams.first)
    stream.onOpen?()
    _ = card.receive()
    stream.onReceive?(Array(repeating: 1, count: 4000))
    #expect(card.receive()?.data.count == 4000)
    #expect(stream.room?() == 96)
    stream.onReceive?(Array(repeating: 2, count: 96))
    _ = card.receive()
    #expect(stream.room?() == 0)
    #expect(stream.roomTold == 0)
    card.send(.creditUpdate, 1, 2, forwarded: 4000)
    #expect(stream.roomTold == 1 && stream.room?() == 4000)

    stream.capacity = 0
    for _ in 0..<16 { card.send(.data, 1, 2, Array(repeating: 3, count: 4096), forwarded: 4000) }
    #expect(card.receive() == nil)
    stream.capacity = .max
    stream.onWritable?()
    let update = try #require(card.receive())
    #expect(update.operation == 6 && update.forwarded == 65536)
    stream.capacity = 0
    for _ in 0..<16 { card.send(.data, 1, 2, Array(repeating: 3, count: 4096), forwarded: 4000) }
    card.send(.data, 1, 2, [4], forwarded: 4000)
    #expect(card.receive()?.operation == 3, "a byte beyond the credit")
    #expect(stream.isClosed)
  }

  @Test("what the driver has no buffers for waits, and a driver without buffers is not served")
  func buffers() throws {
    let card = VsockBench(receiveBuffers: 0)
    for port in UInt32(0)..<316 { card.send(.data, port, 9, isTaken: port < 256) }
    #expect(card.receive() == nil)
    var resets = 0
    for _ in 0..<316 {
      card.addReceiveBuffer()
      while let packet = card.receive() {
        #expect(packet.operation == 3)
        resets += 1
      }
    }
    #expect(resets == 316)
  }

  @Test("packets that are not for it, or of no known kind, get what the specification says")
  func strange() throws {
    let card = VsockBench()
    card.send(.request, 1, 2, source: 9)
    card.send(.request, 1, 2, destination: 7)
    #expect(card.host.asked.isEmpty && card.receive() == nil)
    card.send(.request, 1, 2, type: 2)
    #expect(card.receive()?.operation == 3, "seqpacket was not agreed upon")
    card.send(nil, 1, 2)
    #expect(card.receive()?.operation == 3)
    card.send(.request, 1, 2)
    card.send(.request, 1, 2)
    #expect(card.receive()?.operation == 3, "that connection there is")
    #expect(card.host.asked.count == 1)
    card.host.streams.first?.onEnd?(true)
    #expect(card.receive()?.operation == 3, "nobody listens")
    #expect(!card.bench.needsReset)
  }

  @Test("a restored guest is told that its connections are gone")
  func restored() throws {
    let card = VsockBench()
    card.send(.request, 1, 2)
    card.host.streams.first?.onOpen?()
    _ = card.receive()
    let copy = card.continued()
    let event = try #require(copy.takeEvent())
    #expect(event == [0, 0, 0, 0])
    copy.send(.data, 1, 2, [1])
    #expect(copy.receive()?.operation == 3)
    #expect(copy.takeEvent() == nil)
  }

  @Test("a reset closes every stream")
  func reset() throws {
    let card = VsockBench()
    for port in UInt32(1)...3 { card.send(.request, port, 2) }
    card.bench.transport.reset()
    #expect(card.host.streams.count == 3 && card.host.streams.allSatisfy(\.isClosed))
  }

  @Test("the guest's number is in configuration space")
  func configuration() {
    let card = VsockBench()
    #expect(card.bench.transport.read(offset: 0x2000, width: 4) == 3)
    #expect(card.bench.transport.read(offset: 0x2004, width: 4) == 0)
  }
}

private final class FakeStream: HostStream {
  var onOpen: (() -> Void)?
  var onReceive: (([UInt8]) -> Void)?
  var room: (() -> Int)?
  var onWritable: (() -> Void)?
  var onEnd: ((Bool) -> Void)?
  var taken: [UInt8] = []
  var capacity = Int.max
  var accepted: [UInt32] = []
  var roomTold = 0
  var isFinished = false
  var isClosed = false

  func accept(hostPort: UInt32) { accepted.append(hostPort) }

  func write(_ bytes: [UInt8]) -> Int {
    let count = min(bytes.count, capacity)
    taken += bytes.prefix(count)
    return count
  }

  func hasRoom() { roomTold += 1 }
  func finish() { isFinished = true }
  func close() { isClosed = true }
}

private final class FakeHost: StreamBackend {
  var onConnect: ((any HostStream, UInt32) -> Void)?
  var streams: [FakeStream] = []
  var asked: [UInt32] = []

  func connect(toHostPort port: UInt32) -> any HostStream {
    let stream = FakeStream()
    asked.append(port)
    streams.append(stream)
    return stream
  }
}

/// A guest's socket driver.
private final class VsockBench {
  enum Operation: UInt16 {
    case request = 1
    case response, reset, shutdown, data, creditUpdate, creditRequest
  }

  struct Packet {
    var operation: UInt16
    var ports: [UInt32]
    var flags: UInt32
    var allocated: UInt32
    var forwarded: UInt32
    var data: [UInt8]
  }

  private static let size = 4400
  private static let receiveBase: UInt64 = 0x8_0000
  private static let sendBase: UInt64 = 0x6_0000

  let host = FakeHost()
  let bench: VirtioBench
  private let device: VirtioVsock
  private let receiving: DriverQueue
  private let sending: DriverQueue
  private let events: DriverQueue
  private var places: [UInt16: UInt64] = [:]
  private var nextPlace: UInt64 = 0

  init(receiveBuffers: Int = 16) {
    device = VirtioVsock(identifier: 3, backend: host, state: nil)
    bench = VirtioBench(device)
    bench.negotiate(1 << 32 | 1)
    receiving = DriverQueue(bench, 0, size: 32, packed: false)
    sending = DriverQueue(bench, 1, size: 64, packed: false, base: 0x2_0000)
    events = DriverQueue(bench, 2, size: 8, packed: false, base: 0x3_0000)
    bench.status = 0x0F
    for _ in 0..<receiveBuffers { addReceiveBuffer() }
    addEventBuffer()
  }

  private init(_ other: VsockBench) {
    device = VirtioVsock(identifier: 3, backend: host, state: other.device.saveState())
    bench = VirtioBench(
      device, memory: other.bench.memory, state: other.bench.transport.saveState())
    receiving = other.receiving.continued(on: bench)
    sending = other.sending.continued(on: bench)
    events = other.events.continued(on: bench)
    places = other.places
    nextPlace = other.nextPlace
    bench.transport.resume()
  }

  func continued() -> VsockBench { VsockBench(self) }

  func addReceiveBuffer() {
    let place = Self.receiveBase + nextPlace % 32 * 0x2000
    nextPlace += 1
    places[receiving.add([.writable(place, Self.size)])] = place
    receiving.kick()
  }

  private func addEventBuffer() {
    events.add([.writable(0x5_0000, 4)])
    events.kick()
  }

  func takeEvent() -> [UInt8]? {
    guard let used = events.takeUsed(), used.written == 4 else { return nil }
    addEventBuffer()
    return Array(bench.memory.bytes[0x5_0000..<0x5_0004])
  }

  func send(
    _ operation: Operation?, _ guestPort: UInt32, _ hostPort: UInt32, _ data: [UInt8] = [],
    source: UInt64 = 3, destination: UInt64 = 2, type: UInt16 = 1, flags: UInt32 = 0,
    forwarded: UInt32 = 0, isTaken: Bool = true
  ) {
    var bytes = LittleEndian.bytes(source) + LittleEndian.bytes(destination)
    for value in [guestPort, hostPort, UInt32(data.count)] { bytes += LittleEndian.bytes(value) }
    bytes += LittleEndian.bytes(type) + LittleEndian.bytes(operation?.rawValue ?? 99)
    for value in [flags, 4096, forwarded] { bytes += LittleEndian.bytes(value) }
    bytes += data
    let place = Int(Self.sendBase) + (isTaken ? 0 : Int(guestPort % 64) * 64)
    bench.memory.bytes.replaceSubrange(place..<place + bytes.count, with: bytes)
    sending.add([.readable(UInt64(place), bytes.count)])
    sending.kick()
    if isTaken { #expect(sending.takeUsed() != nil) }
  }

  func receive() -> Packet? {
    guard let used = receiving.takeUsed(), let place = places[used.identifier] else { return nil }
    let bytes = Array(bench.memory.bytes[Int(place)..<Int(place) + Int(used.written)])
    func number<T: FixedWidthInteger>(_ at: Int) -> T { LittleEndian.number(bytes, at: at, T.self) }
    #expect(number(0) == UInt64(2) && number(8) == UInt64(3))
    #expect(bytes.count == 44 + Int(number(24) as UInt32))
    addReceiveBuffer()
    return Packet(
      operation: number(30), ports: [number(16), number(20)], flags: number(32),
      allocated: number(36), forwarded: number(40), data: Array(bytes.dropFirst(44)))
  }
}
