import DeviceModel
import Devices
import LinuxSystem
import Machine

/// A driver of a virtio network card with two queue pairs on a TAP interface.
final class NetworkDriver {
  static let address: [UInt8] = [0x52, 0x54, 0, 1, 2, 3]

  enum Feature {
    /// CSUM, HOST_TSO4, STATUS, CTRL_VQ and MQ.
    static let plain: UInt64 = 1 << 0 | 1 << 11 | 1 << 16 | 1 << 17 | 1 << 22 | 1 << 32
    /// GUEST_CSUM, CTRL_GUEST_OFFLOADS, GUEST_TSO4 and MRG_RXBUF.
    static let large: UInt64 = plain | 1 << 1 | 1 << 2 | 1 << 7 | 1 << 15
  }

  private static let controlQueue = 4
  private static let bufferSize = 2048
  private static let buffers = 64
  private static let transmitBuffer: UInt64 = 0x10_0000

  private let lock = Lock()
  private var link: NetworkLink
  private let memory = PlainMemory(size: 2 << 20)
  private var card: VirtioNet
  private var transport: VirtioPCI
  private var queues: [Ring] = []
  private var isMergeable = false
  /// Frames that came and were not asked for yet, by queue pair.
  private var waiting: [[NetworkFrame]] = [[], []]

  /// - Parameter count: of the interface's queues.
  init(tap name: String, queues count: Int = 1, features: UInt64 = Feature.plain) throws {
    link = try Self.open(name, count)
    card = VirtioNet(address: Self.address, pairs: 2, backend: link, state: nil)
    transport = Self.transport(card, memory, nil)
    transport.function.setRegister(PCIRegister.command, width: 2, value: 6)
    restart(features: features)
    try link.start(lock: lock)
  }

  private static func open(_ name: String, _ queues: Int) throws -> NetworkLink {
    guard let link = try NetworkLink.open(.init(.tap(name), queues: queues)) else {
      throw NeverCame(what: "the interface \(name)")
    }
    return link
  }

  private static func transport(
    _ card: VirtioNet, _ memory: PlainMemory, _ state: VirtioPCI.State?
  ) -> VirtioPCI {
    VirtioPCI(card, memory: memory, messages: NoMessages(), log: { _ in }, state: state)
  }

  func close() { link.close() }

  /// Goes on with the card's state on another interface, as a restored machine does.
  func move(to name: String, queues count: Int = 1) throws {
    link.close()
    let (state, transportState) = (card.saveState(), transport.saveState())
    link = try Self.open(name, count)
    card = VirtioNet(address: Self.address, pairs: 2, backend: link, state: state)
    transport = Self.transport(card, memory, transportState)
    for queue in queues { queue.transport = transport }
    lock.withLock { transport.resume() }
    try link.start(lock: lock)
  }

  /// Resets the card and brings it up again.
  func restart(features: UInt64) { lock.withLock { start(features) } }

  private func start(_ features: UInt64) {
    for status: UInt64 in [0, 1, 3] { transport.write(offset: 0x14, width: 1, value: status) }
    for half: UInt64 in 0..<2 {
      transport.write(offset: 0x08, width: 4, value: half)
      transport.write(offset: 0x0C, width: 4, value: features >> (half * 32) & 0xFFFF_FFFF)
    }
    transport.write(offset: 0x14, width: 1, value: 0x0B)
    isMergeable = features & 1 << 15 != 0
    waiting = [[], []]
    queues = (0...Self.controlQueue).map { Ring($0, transport, memory) }
    transport.write(offset: 0x14, width: 1, value: 0x0F)
    for queue in [0, 2] {
      for buffer in 0..<Self.buffers { post(buffer, on: queue) }
      queues[queue].kick()
    }
  }

  private func place(_ buffer: Int, of queue: Int) -> UInt64 {
    0x4_0000 + UInt64(queue * 0x2_0000 + buffer * Self.bufferSize)
  }

  private func post(_ buffer: Int, on queue: Int) {
    queues[queue].describe(
      buffer, place(buffer, of: queue), Self.bufferSize, isWritable: true, next: nil)
    queues[queue].expose(buffer)
  }

  /// Of the configuration space.
  var isLinkUp: Bool {
    lock.withLock { transport.read(offset: 0x2006, width: 1) & 1 != 0 }
  }

  /// VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET.
  func usePairs(_ count: UInt8) throws {
    guard command([4, 0, count, 0]) else { throw NeverCame(what: "\(count) queue pairs") }
  }

  /// VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET.
  func wantOffloads(_ bits: UInt64) throws {
    let data = (0..<8).map { UInt8(truncatingIfNeeded: bits >> ($0 * 8)) }
    guard command([5, 0] + data) else { throw NeverCame(what: "offloads \(bits)") }
  }

  private func command(_ bytes: [UInt8]) -> Bool {
    lock.withLock {
      memory.bytes.replaceSubrange(0x3_0000..<0x3_0000 + bytes.count, with: bytes)
      memory.bytes[0x3_0100] = 0xFF
      let queue = queues[Self.controlQueue]
      queue.describe(0, 0x3_0000, bytes.count, isWritable: false, next: 1)
      queue.describe(1, 0x3_0100, 1, isWritable: true, next: nil)
      queue.expose(0)
      queue.kick()
      return memory.bytes[0x3_0100] == 0
    }
  }

  /// Sends a virtio_net_hdr and a frame.
  func send(_ bytes: [UInt8], pair: Int = 0) {
    lock.withLock {
      let place = Int(Self.transmitBuffer)
      memory.bytes.replaceSubrange(place..<place + bytes.count, with: bytes)
      let queue = queues[2 * pair + 1]
      queue.describe(0, Self.transmitBuffer, bytes.count, isWritable: false, next: nil)
      queue.expose(0)
      queue.kick()
    }
  }

  /// The next frame on a queue pair that is `wanted`; others are lost. It says on which pair
  /// it came.
  ///
  /// - Parameter pair: `nil` for any.
  func receive(
    pair: Int? = 0, _ wanted: (NetworkFrame) -> Bool
  ) throws -> NetworkFrame {
    let pairs = pair.map { [$0] } ?? [0, 1]
    var found: NetworkFrame?
    try eventually("a frame on queue pairs \(pairs)") {
      for pair in pairs {
        try lock.withLock { try take(pair) }
        while found == nil, !waiting[pair].isEmpty {
          let frame = waiting[pair].removeFirst()
          if wanted(frame) { found = frame }
        }
      }
      return found != nil
    }
    guard let found else { throw NeverCame(what: "a frame") }
    return found
  }

  private func take(_ pair: Int) throws {
    let queue = 2 * pair
    while var (buffer, count) = queues[queue].takeUsed() {
      let start = Int(place(buffer, of: queue))
      let header = Array(memory.bytes[start..<start + VirtioNetHeader.size])
      var bytes = Array(memory.bytes[start + VirtioNetHeader.size..<start + count])
      post(buffer, on: queue)
      let others = isMergeable ? Int(header[10]) | Int(header[11]) << 8 : 1
      for _ in 1..<max(others, 1) {
        guard let next = queues[queue].takeUsed() else {
          throw NeverCame(what: "one of the \(others) buffers of a frame")
        }
        (buffer, count) = next
        let start = Int(place(buffer, of: queue))
        bytes += memory.bytes[start..<start + count]
        post(buffer, on: queue)
      }
      waiting[pair].append(
        NetworkFrame(bytes, header: VirtioNetHeader(header), queue: pair))
      queues[queue].kick()
    }
  }

  /// The hardware address of `target`, by ARP (RFC 826).
  func resolve(_ target: [UInt8], from source: [UInt8]) throws -> [UInt8] {
    let broadcast = [UInt8](repeating: 0xFF, count: 6)
    let request: [UInt8] =
      broadcast + Self.address + [8, 6, 0, 1, 8, 0, 6, 4, 0, 1] + Self.address + source
      + [0, 0, 0, 0, 0, 0] + target
    send([UInt8](repeating: 0, count: VirtioNetHeader.size) + request)
    let answer = try receive(pair: nil) { frame in
      let bytes = frame.bytes
      return bytes.count >= 42 && bytes[12] == 8 && bytes[13] == 6 && bytes[21] == 2
        && Array(bytes[28..<32]) == target
    }
    return Array(answer.bytes[22..<28])
  }

  private final class NoMessages: MessageInterrupts {
    func route(vector: Int, address: UInt64, data: UInt32) {}
    func signal(vector: Int) {}
  }
}

/// The driver's end of a split ring with 64 descriptors.
private final class Ring {
  private static let size: UInt16 = 64

  private let number: Int
  var transport: VirtioPCI
  private let memory: PlainMemory
  private var exposed: UInt16 = 0
  private var taken: UInt16 = 0
  private var base: UInt64 { 0x1000 + UInt64(number) * 0x4000 }

  init(_ number: Int, _ transport: VirtioPCI, _ memory: PlainMemory) {
    (self.number, self.transport, self.memory) = (number, transport, memory)
    let area = Int(base)
    memory.bytes.replaceSubrange(area..<area + 0x3000, with: repeatElement(0, count: 0x3000))
    transport.write(offset: 0x16, width: 2, value: UInt64(number))
    transport.write(offset: 0x18, width: 2, value: UInt64(Self.size))
    for (index, register) in [UInt64(0x20), 0x28, 0x30].enumerated() {
      transport.write(offset: register, width: 4, value: base + UInt64(index) * 0x1000)
      transport.write(offset: register + 4, width: 4, value: 0)
    }
    transport.write(offset: 0x1C, width: 2, value: 1)
  }

  func describe(_ index: Int, _ address: UInt64, _ count: Int, isWritable: Bool, next: UInt16?) {
    let place = base + UInt64(index) * 16
    memory.put(address, at: place)
    memory.put(UInt32(count), at: place + 8)
    memory.put((isWritable ? 2 : 0) | (next == nil ? 0 : 1) as UInt16, at: place + 12)
    memory.put(next ?? 0, at: place + 14)
  }

  func expose(_ index: Int) {
    memory.put(UInt16(index), at: base + 0x1004 + UInt64(exposed % Self.size) * 2)
    exposed &+= 1
    memory.put(exposed, at: base + 0x1002)
  }

  func kick() {
    transport.write(
      offset: 0x3000 + UInt64(number) * 4, width: 2, value: UInt64(number))
  }

  func takeUsed() -> (index: Int, count: Int)? {
    let used: UInt16 = memory.get(base + 0x2002)
    guard used != taken else { return nil }
    let place = base + 0x2004 + UInt64(taken % Self.size) * 8
    taken &+= 1
    return (Int(memory.get(place) as UInt32), Int(memory.get(place + 4) as UInt32))
  }
}

/// RAM that nobody maps.
private final class PlainMemory: GuestMemory {
  var bytes: [UInt8]

  init(size: Int) { bytes = Array(repeating: 0, count: size) }

  func read(
    at address: UInt64, into buffer: UnsafeMutableRawBufferPointer
  ) throws(GuestMemoryError) {
    buffer.copyBytes(from: bytes[try range(address, buffer.count)])
  }

  func write(at address: UInt64, from buffer: UnsafeRawBufferPointer) throws(GuestMemoryError) {
    bytes.replaceSubrange(try range(address, buffer.count), with: buffer)
  }

  private func range(_ address: UInt64, _ count: Int) throws(GuestMemoryError) -> Range<Int> {
    guard address <= UInt64(bytes.count), UInt64(count) <= UInt64(bytes.count) - address else {
      throw GuestMemoryError(address: address, count: count)
    }
    return Int(address)..<Int(address) + count
  }

  func put(_ value: some FixedWidthInteger, at address: UInt64) {
    for index in 0..<value.bitWidth / 8 {
      bytes[Int(address) + index] = UInt8(truncatingIfNeeded: value >> (index * 8))
    }
  }

  func get<Number: FixedWidthInteger>(_ address: UInt64) -> Number {
    (0..<Number.bitWidth / 8).reduce(0) {
      $0 | Number(truncatingIfNeeded: bytes[Int(address) + $1]) << ($1 * 8)
    }
  }
}
