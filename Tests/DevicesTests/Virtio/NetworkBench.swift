import DeviceModel
import Devices

/// What a network card's cable leads to in tests, and what it was told.
final class FakeWire: NetworkBackend {
  let takesUnfinished: Bool
  let queues: Int
  var sent: [NetworkFrame] = []
  var onReceive: ((NetworkFrame) -> Bool)?
  var onConnectionChange: (() -> Void)?
  var isConnected = true { didSet { onConnectionChange?() } }
  var roomCount = 0
  var offloads: NetworkOffloads = []
  var used = 0
  /// Whether it does as it is told with its queues.
  var obeys = true

  init(takesUnfinished: Bool = false, queues: Int = 1) {
    (self.takesUnfinished, self.queues) = (takesUnfinished, queues)
  }

  func send(_ frame: NetworkFrame) { sent.append(frame) }
  func hasRoom() { roomCount += 1 }
  func accept(_ offloads: NetworkOffloads) { self.offloads = offloads }

  func use(queues: Int) -> Bool {
    if obeys { used = queues }
    return obeys
  }

  func bring(
    _ bytes: [UInt8], header: VirtioNetHeader = VirtioNetHeader(), queue: Int = 0
  ) -> Bool? {
    onReceive?(NetworkFrame(bytes, header: header, queue: queue))
  }
}

/// A network card and its driver.
struct NetworkBench {
  static let address: [UInt8] = [0x52, 0x54, 0, 1, 2, 3]
  static let status: UInt64 = 1 << 16
  static let control: UInt64 = 1 << 17
  static let multiqueue: UInt64 = 1 << 22
  static let packedRing: UInt64 = 1 << 34
  /// Large enough for many frames, and a driver's rings before it.
  static let memorySize = 4 << 20
  /// Where receive buffers begin.
  static let buffers: UInt64 = 0x10_0000

  let wire: FakeWire
  let device: VirtioNet
  let bench: VirtioBench
  /// Of the first pair.
  let receive: DriverQueue
  let transmit: DriverQueue
  let control: DriverQueue
  private let packed: Bool
  private let size: Int

  init(
    pairs: Int = 1, features: UInt64 = 0, wire: FakeWire = FakeWire(), size: Int = 8,
    state: VirtioNet.State? = nil
  ) {
    self.wire = wire
    self.size = size
    packed = features & Self.packedRing != 0
    device = VirtioNet(address: Self.address, pairs: pairs, backend: wire, state: state)
    bench = VirtioBench(device, memory: FakeMemory(size: Self.memorySize))
    bench.negotiate(1 << 32 | Self.status | Self.control | features)
    let last = features & Self.multiqueue != 0 ? 2 * pairs : 2
    receive = DriverQueue(bench, 0, size: size, packed: packed, base: 0x1_0000)
    transmit = DriverQueue(bench, 1, size: size, packed: packed, base: 0x2_0000)
    control = DriverQueue(bench, last, size: size, packed: packed, base: 0x3_0000)
    bench.status = 0x0F
  }

  /// Another queue of the card.
  func queue(_ number: Int) -> DriverQueue {
    DriverQueue(bench, number, size: size, packed: packed, base: 0x4_0000 + UInt64(number) << 16)
  }

  func send(_ bytes: [UInt8]) {
    put(bytes, at: 0x8_0000)
    transmit.add([.readable(0x8_0000, bytes.count)])
    transmit.kick()
  }

  func command(_ bytes: [UInt8]) -> UInt8 {
    put(bytes, at: 0x9_0000)
    bench.memory.bytes[0x9_8000] = 0xEE
    control.add([.readable(0x9_0000, bytes.count), .writable(0x9_8000, 1)])
    control.kick()
    return bench.memory.bytes[0x9_8000]
  }

  /// VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET (section 5.1.6.5.7).
  func wantOffloads(_ bits: UInt64) -> UInt8 {
    command([5, 0] + (0..<8).map { UInt8(truncatingIfNeeded: bits >> ($0 * 8)) })
  }

  /// Offers receive buffers of so many bytes each.
  func offer(_ count: Int, of bytes: Int, from first: Int = 0) {
    for index in first..<first + count {
      receive.add([.writable(Self.buffers + UInt64(index * bytes), bytes)])
    }
    receive.kick()
  }

  /// Bytes of the receive buffers, one behind the other.
  func received(_ count: Int, from offset: Int = 0) -> [UInt8] {
    let start = Int(Self.buffers) + offset
    return Array(bench.memory.bytes[start..<start + count])
  }

  func put(_ bytes: [UInt8], at place: Int) {
    bench.memory.bytes.replaceSubrange(place..<place + bytes.count, with: bytes)
  }

  var linkStatus: UInt64 { bench.transport.read(offset: 0x2006, width: 1) & 0xFF }
}
