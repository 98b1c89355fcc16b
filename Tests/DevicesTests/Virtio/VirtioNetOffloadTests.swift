import DeviceModel
import Devices
import Testing

@Suite("A virtio network card whose cable carries unfinished frames")
struct VirtioNetOffloadTests {
  private static let guestChecksum: UInt64 = 1 << 1
  private static let controlOffloads: UInt64 = 1 << 2
  private static let guestTCP4: UInt64 = 1 << 7
  private static let guestTCP6: UInt64 = 1 << 8
  private static let guestECN: UInt64 = 1 << 9
  private static let mergeable: UInt64 = 1 << 15
  private static let segments = guestChecksum | guestTCP4 | guestTCP6 | guestECN
  private static let all = segments | controlOffloads | mergeable

  private static let pattern = (0..<40_000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }
  private static let ip: [UInt8] =
    [0x45, 0, 0x0B, 0xE0, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
  private static let tcp: [UInt8] =
    [0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0xFF, 0xFF, 0, 0, 0, 0]

  private func wire(queues: Int = 1) -> FakeWire { FakeWire(takesUnfinished: true, queues: queues) }

  /// A TCP segment over IPv4 with so much data.
  private func segment(_ count: Int) -> [UInt8] {
    NetworkBench.address + [2, 0, 0, 0, 0, 9, 8, 0] + Self.ip + Self.tcp + Self.pattern[..<count]
  }

  /// What is said of it.
  private static let header: VirtioNetHeader = {
    var header = VirtioNetHeader()
    (header.needsChecksum, header.segmentation) = (true, .tcp4)
    (header.headerSize, header.segmentSize) = (54, 1448)
    (header.checksumStart, header.checksumOffset) = (34, 16)
    return header
  }()

  @Test("has features for them, which one on another cable has not")
  func offered() {
    let features = Self.segments & ~Self.guestChecksum | Self.controlOffloads
    #expect(NetworkBench().bench.offered & features == 0)
    #expect(NetworkBench(wire: wire()).bench.offered & features == features)
    let either = Self.mergeable | Self.guestChecksum
    #expect(NetworkBench().bench.offered & either == either)
  }

  @Test(
    "puts a large segment into as many buffers as it takes, at once and with its header",
    arguments: [false, true])
  func mergeable(packed: Bool) {
    let setting = NetworkBench(
      features: Self.all | (packed ? NetworkBench.packedRing : 0), wire: wire(), size: 16)
    let frame = segment(20_000)
    // Three rounds of the ring, so that a frame's buffers lie across its end.
    for round in 0..<6 {
      setting.offer(7, of: 3072, from: round % 2 == 0 ? 0 : 7)
      #expect(setting.wire.bring(frame, header: Self.header) == true)
      let place = round % 2 == 0 ? 0 : 7 * 3072
      #expect(
        setting.received(12, from: place) == [1, 1, 54, 0, 0xA8, 5, 34, 0, 16, 0, 7, 0],
        "seven buffers")
      #expect(setting.received(frame.count, from: place + 12) == frame)
      let used = (0..<7).map { _ in setting.receive.takeUsed()?.written }
      #expect(used == Array(repeating: 3072, count: 6) + [20_066 - 6 * 3072])
      #expect(setting.receive.takeUsed() == nil)
    }
    #expect(!setting.bench.needsReset)
  }

  @Test("lets the driver see all buffers of a frame or none", arguments: [false, true])
  func together(packed: Bool) {
    let setting = NetworkBench(
      features: Self.all | (packed ? NetworkBench.packedRing : 0), wire: wire())
    setting.offer(3, of: 2048)
    let queue = setting.receive
    // What makes the first buffer a used one: the ring's index, or its descriptor's flags.
    let first = packed ? queue.descriptors + 14 : queue.device + 2
    let others = packed ? [1, 2].map { queue.descriptors + $0 * 16 + 14 } : []
    let before = queue.get(first, UInt16.self)
    var seen: [[Bool]] = []
    setting.bench.memory.onWrite = { address in
      guard address == first else { return }
      seen.append(others.map { queue.get($0, UInt16.self) & 0x8080 == 0x8080 })
    }
    #expect(setting.wire.bring(segment(5000), header: Self.header) == true)
    #expect(queue.get(first, UInt16.self) != before)
    // Once, and of a packed ring after all others.
    #expect(seen == [packed ? [true, true] : []])
    #expect(packed || queue.get(first, UInt16.self) == 3)
  }

  @Test("keeps a frame until there are buffers enough, and takes none before")
  func waits() {
    let setting = NetworkBench(features: Self.all, wire: wire())
    setting.offer(2, of: 2048)
    let frame = segment(6000)
    #expect(setting.wire.bring(frame, header: Self.header) == false)
    #expect(setting.receive.takeUsed() == nil)
    setting.offer(1, of: 2048, from: 2)
    #expect(setting.wire.roomCount == 1)
    #expect(setting.wire.bring(frame, header: Self.header) == true)
    #expect(setting.received(frame.count, from: 12) == frame)
    #expect((0..<3).compactMap { _ in setting.receive.takeUsed() }.count == 3)
    // A small one waits behind it no longer.
    setting.offer(1, of: 2048, from: 3)
    #expect(setting.wire.bring(segment(10)) == true)
  }

  @Test("drops what does not fit all buffers that a ring can have, and goes on")
  func neverFits() {
    let setting = NetworkBench(features: Self.all, wire: wire())
    setting.offer(8, of: 1024)
    #expect(setting.wire.bring(segment(20_000), header: Self.header) == true)
    #expect(setting.receive.takeUsed() == nil && !setting.bench.needsReset)
    #expect(setting.wire.bring(segment(1000)) == true)
    #expect((0..<2).compactMap { _ in setting.receive.takeUsed() }.map(\.written) == [1024, 42])
  }

  @Test("a buffer without room for the header breaks it until its reset")
  func tinyBuffers() {
    let setting = NetworkBench(features: Self.all, wire: wire())
    setting.offer(8, of: 11)
    #expect(setting.wire.bring(segment(6)) == true)
    #expect(setting.bench.needsReset)
  }

  @Test("fills one big buffer where buffers are not merged, and drops what is larger")
  func bigBuffers() {
    let setting = NetworkBench(features: Self.all & ~Self.mergeable, wire: wire())
    setting.offer(1, of: 65_562)
    setting.offer(1, of: 8192, from: 9)
    let frame = segment(39_000)
    #expect(setting.wire.bring(frame, header: Self.header) == true)
    #expect(setting.receive.takeUsed()?.written == 39_066)
    #expect(setting.received(12) == [1, 1, 54, 0, 0xA8, 5, 34, 0, 16, 0, 1, 0])
    #expect(setting.received(frame.count, from: 12) == frame)
    #expect(setting.wire.bring(frame, header: Self.header) == true)
    #expect(setting.receive.takeUsed() == nil && !setting.bench.needsReset)
    #expect(setting.wire.bring(segment(1000)) == true)
    #expect(setting.receive.takeUsed()?.written == 1066)
  }

  @Test("takes frames of 65,550 bytes, and no larger")
  func largest() {
    let setting = NetworkBench(features: Self.all, wire: wire(), size: 64)
    setting.offer(33, of: 2048)
    let frame = segment(0) + [UInt8](repeating: 0xA5, count: 65_550 - 54)
    #expect(setting.wire.bring(frame + [0], header: Self.header) == true)
    #expect(setting.receive.takeUsed() == nil)
    #expect(setting.wire.bring(frame, header: Self.header) == true)
    #expect((0..<33).compactMap { _ in setting.receive.takeUsed()?.written }.reduce(0, +) == 65_562)
  }

  @Test("never gives a driver what it did not agree to")
  func notNegotiated() {
    let setting = NetworkBench(features: Self.mergeable, wire: wire())
    setting.offer(8, of: 2048)
    #expect(setting.wire.offloads == [])
    // They were on their way when the driver before it had agreed.
    #expect(setting.wire.bring(segment(6000), header: Self.header) == true)
    #expect(setting.receive.takeUsed() == nil)
    var header = Self.header
    (header.segmentation, header.segmentSize) = (.whole, 0)
    var expected = segment(1001)
    expected.replaceSubrange(50..<52, with: Self.checksum(expected[34...]))
    #expect(setting.wire.bring(segment(1001), header: header) == true)
    #expect(setting.received(12) == Array(repeating: 0, count: 10) + [1, 0])
    #expect(setting.received(expected.count, from: 12) == expected)
  }

  private static func checksum(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
    var total: UInt32 = 0
    for (index, byte) in bytes.enumerated() { total += UInt32(byte) << (index % 2 == 0 ? 8 : 0) }
    while total > 0xFFFF { total = total >> 16 + total & 0xFFFF }
    return [UInt8(~total >> 8 & 0xFF), UInt8(~total & 0xFF)]
  }

  @Test("gives a driver no kind of segment that it left out")
  func kinds() {
    let setting = NetworkBench(
      features: Self.mergeable | Self.guestChecksum | Self.guestTCP6, wire: wire())
    setting.offer(8, of: 2048)
    #expect(setting.wire.offloads == [.checksum, .tcp6])
    var header = Self.header
    #expect(setting.wire.bring(segment(4000), header: header) == true)
    header.segmentation = .tcp6
    header.hasCongestion = true
    #expect(setting.wire.bring(segment(4000), header: header) == true)
    #expect(setting.receive.takeUsed() == nil)
    header.hasCongestion = false
    #expect(setting.wire.bring(segment(4000), header: header) == true)
    #expect(setting.receive.takeUsed() != nil)
  }

  @Test("segments without checksums are agreed upon by nobody")
  func dependencies() {
    let setting = NetworkBench(features: Self.all & ~Self.guestChecksum, wire: wire())
    #expect(setting.wire.offloads == [])
    let other = NetworkBench(features: Self.guestChecksum | Self.guestECN, wire: wire())
    #expect(other.wire.offloads == [.checksum])
  }

  @Test("tells its backend what the driver takes, also when it changes its mind")
  func control() {
    let setting = NetworkBench(features: Self.all, wire: wire())
    #expect(setting.wire.offloads == [.checksum, .tcp4, .tcp6, .congestion])
    #expect(setting.wantOffloads(Self.guestChecksum | Self.guestTCP4) == 0)
    #expect(setting.wire.offloads == [.checksum, .tcp4])
    #expect(setting.wantOffloads(1 << 10) == 1, "GUEST_UFO")
    #expect(
      setting.command([5, 0, 0, 0]) == 1
        && setting.command([5, 1] + [UInt8](repeating: 0, count: 8)) == 1)
    #expect(setting.wire.offloads == [.checksum, .tcp4])
    #expect(setting.wantOffloads(0) == 0)
    #expect(setting.wire.offloads == [])
    #expect(setting.wantOffloads(Self.segments) == 0)
    #expect(setting.wire.offloads == [.checksum, .tcp4, .tcp6, .congestion])
    setting.bench.status = 0
    #expect(setting.wire.offloads == [])
    setting.bench.negotiate(1 << 32 | Self.guestChecksum)
    setting.bench.status = 0x0F
    #expect(setting.wire.offloads == [.checksum])
  }

  @Test("without the command's feature a driver cannot change its mind")
  func noControl() {
    let setting = NetworkBench(features: Self.all & ~Self.controlOffloads, wire: wire())
    #expect(setting.wantOffloads(0) == 1)
    #expect(setting.wire.offloads == [.checksum, .tcp4, .tcp6, .congestion])
  }

  // MARK: From the driver

  @Test("passes on what the driver left to it, in terms that fit the frame")
  func passesOn() {
    let setting = NetworkBench(wire: wire())
    let frame = segment(3000)
    // hdr_len is the driver's guess; DATA_VALID and num_buffers are not for devices.
    setting.send([3, 0x81, 9, 9, 0xA8, 5, 34, 0, 16, 0, 7, 7] + frame)
    var expected = Self.header
    expected.hasCongestion = true
    #expect(setting.wire.sent.map(\.bytes) == [frame])
    #expect(setting.wire.sent.map(\.header) == [expected])
    setting.send([0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9] + segment(100))
    #expect(setting.wire.sent.last?.header == VirtioNetHeader())
    #expect(setting.wire.sent.last?.bytes == segment(100))
  }

  @Test("passes on segments of TCP over IPv6, behind an extension header and a VLAN's tag")
  func passesOnIPv6() {
    let setting = NetworkBench(wire: wire())
    let addresses = [UInt8](repeating: 0xFD, count: 32)
    let payload = Array(segment(3000)[34...])
    // A destination options header of 8 bytes before TCP.
    let frame: [UInt8] =
      NetworkBench.address + [2, 0, 0, 0, 0, 9, 0x81, 0, 0, 7, 0x86, 0xDD]
      + [0x60, 0, 0, 0, 0x0B, 0xD4, 60, 64] + addresses + [6, 0, 1, 4, 0, 0, 0, 0] + payload
    setting.send([1, 4, 0, 0, 0x8C, 5, 66, 0, 16, 0, 0, 0] + frame)
    var expected = VirtioNetHeader()
    (expected.needsChecksum, expected.segmentation) = (true, .tcp6)
    (expected.headerSize, expected.segmentSize) = (86, 1420)
    (expected.checksumStart, expected.checksumOffset) = (66, 16)
    #expect(setting.wire.sent.map(\.bytes) == [frame])
    #expect(setting.wire.sent.map(\.header) == [expected])
    // One byte more does not fit the wire.
    setting.send([1, 4, 0, 0, 0x99, 5, 66, 0, 16, 0, 0, 0] + frame)
    #expect(setting.wire.sent.count == 1)
  }

  @Test("loses what no driver sends")
  func malformed() {
    let setting = NetworkBench(wire: wire())
    let frame = segment(3000)
    let udp = frame[..<23] + [17] + frame[24...]
    let cases: [(header: [UInt8], frame: [UInt8])] = [
      ([1, 0, 0, 0, 0, 0, 0xFF, 0xFF, 16, 0, 0, 0], segment(100)),
      ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], frame),
      ([1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0], frame),
      ([1, 1, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0], frame),
      ([0, 1, 0, 0, 0xA8, 5, 34, 0, 16, 0, 0, 0], frame),
      ([1, 4, 0, 0, 0xA8, 5, 34, 0, 16, 0, 0, 0], frame),
      ([1, 9, 0, 0, 0xA8, 5, 34, 0, 16, 0, 0, 0], frame),
      ([1, 1, 0, 0, 0xA8, 5, 34, 0, 6, 0, 0, 0], frame),
      ([1, 1, 0, 0, 0xA8, 5, 30, 0, 16, 0, 0, 0], frame),
      ([1, 1, 0, 0, 0xFF, 0x0F, 34, 0, 16, 0, 0, 0], frame),
      ([1, 1, 0, 0, 1, 0, 34, 0, 16, 0, 0, 0], frame),
      ([1, 1, 0, 0, 0xA8, 5, 34, 0, 16, 0, 0, 0], Array(udp)),
    ]
    for one in cases {
      setting.send(one.header + one.frame)
      #expect(setting.transmit.takeUsed() != nil)
    }
    #expect(setting.wire.sent.isEmpty && !setting.bench.needsReset)
  }

  // MARK: Queues

  @Test("uses as many queues of its backend as the driver does, which says where frames go")
  func queues() {
    let setting = NetworkBench(
      pairs: 2, features: Self.all | NetworkBench.multiqueue, wire: wire(queues: 2))
    let second = setting.queue(2)
    let sender = setting.queue(3)
    #expect(setting.wire.used == 1)
    #expect(setting.command([4, 0, 2, 0]) == 0)
    #expect(setting.wire.used == 2)
    second.add([.writable(0xA_0000, 2048)])
    second.kick()
    #expect(setting.wire.bring(segment(100), queue: 1) == true)
    #expect(second.takeUsed()?.written == 166 && setting.receive.takeUsed() == nil)
    setting.put([UInt8](repeating: 0, count: 12) + segment(100), at: 0xB_0000)
    sender.add([.readable(0xB_0000, 166)])
    sender.kick()
    #expect(setting.wire.sent.map(\.queue) == [1])
    setting.wire.obeys = false
    #expect(setting.command([4, 0, 1, 0]) == 1, "refused when it cannot be done")
    setting.wire.obeys = true
    setting.bench.status = 0
    #expect(setting.wire.used == 1)
  }

  @Test("with a backend of one queue, frames go where their flow was sent")
  func steering() {
    let setting = NetworkBench(
      pairs: 2, features: Self.all | NetworkBench.multiqueue, wire: wire())
    let second = setting.queue(2)
    let sender = setting.queue(3)
    #expect(setting.command([4, 0, 2, 0]) == 0)
    #expect(setting.wire.used == 1)
    second.add([.writable(0xA_0000, 2048)])
    second.kick()
    setting.put([UInt8](repeating: 0, count: 12) + segment(100), at: 0xB_0000)
    sender.add([.readable(0xB_0000, 166)])
    sender.kick()
    #expect(setting.wire.sent.map(\.queue) == [1])
    #expect(setting.wire.bring(segment(100)) == true)
    #expect(second.takeUsed()?.written == 166)
  }

  // MARK: Saved and gone on with

  @Test("goes on elsewhere as its driver left it, also where nothing comes unfinished")
  func restored() {
    let setting = NetworkBench(
      pairs: 2, features: Self.all | NetworkBench.multiqueue, wire: wire(queues: 2))
    setting.offer(4, of: 2048)
    #expect(setting.command([4, 0, 2, 0]) == 0)
    #expect(setting.wantOffloads(Self.guestChecksum | Self.guestTCP4) == 0)
    let (card, state) = (setting.bench.transport.saveState(), setting.device.saveState())
    let next = wire(queues: 2)
    let device = VirtioNet(address: NetworkBench.address, pairs: 2, backend: next, state: state)
    let bench = VirtioBench(device, memory: setting.bench.memory, state: card)
    #expect(next.offloads == [.checksum, .tcp4] && next.used == 2)
    bench.transport.resume()
    #expect(next.bring(segment(5000), header: Self.header) == true)
    let queue = setting.receive.continued(on: bench)
    #expect(queue.takeUsed()?.written == 2048)

    let plain = FakeWire()
    let other = VirtioNet(address: NetworkBench.address, pairs: 2, backend: plain, state: state)
    let otherBench = VirtioBench(other, memory: setting.bench.memory, state: card)
    otherBench.transport.resume()
    let bytes = segment(100)
    #expect(plain.bring(bytes) == true)
    #expect(setting.received(12) == Array(repeating: 0, count: 10) + [1, 0])
    #expect(setting.received(bytes.count, from: 12) == bytes)
    // What the driver leaves to the card is done here now.
    setting.put(Self.header.bytes() + segment(3000), at: 0x8_0000)
    let transmit = setting.transmit.continued(on: otherBench)
    transmit.add([.readable(0x8_0000, 3066)])
    transmit.kick()
    #expect(plain.sent.map(\.bytes.count) == [1502, 1502, 158])
    #expect(plain.sent.allSatisfy { $0.header == VirtioNetHeader() && $0.queue == 0 })
  }
}
