import DeviceModel

/// Drives each kind of virtio device but disks with an arbitrary byte string, as a guest
/// with bad intentions would, while the host does its part. Shared by the fuzz target and
/// the tests.
package enum VirtioCardsFuzzing {
  package static let kinds = 10

  /// The first byte says which device it is; then come the driver's and the host's acts.
  ///
  /// - Returns: whether the device takes a buffer as it should after a reset, whatever it
  ///   was brought to.
  @discardableResult
  package static func run(_ program: [UInt8]) -> Bool {
    var rest = program[...]
    func next() -> UInt8 { rest.popFirst() ?? 0 }
    func word() -> UInt64 { (0..<4).reduce(0) { value, _ in value << 8 | UInt64(next()) } }
    let bench = Bench(kind: Int(next()) % kinds)
    bench.start(features: .max)
    while let operation = rest.popFirst() {
      let width = 1 << Int(operation >> 4 & 3)
      switch operation & 15 {
      case 0: bench.card.write(offset: word() & 0x7FFF, width: min(width, 4), value: word())
      case 1: _ = bench.card.read(offset: word() & 0x7FFF, width: min(width, 4))
      case 2: bench.start(features: word() << 32 | word())
      case 3: bench.describe(next(), next(), page: next(), count: next(), flags: next())
      case 4: bench.expose(next(), head: next(), index: next())
      case 5, 6: bench.put([next(), next(), next(), next()], at: Int(word() & 0xFFFC))
      case 7: bench.card.ring(Int(next() & 15))
      case 8, 9, 10: bench.act(next(), next())
      case 11: bench.settle(Int(next()))
      case 12: bench.restore()
      case 13: bench.card.reset()
      default: bench.card.write(offset: 0x2000 + UInt64(next()), width: 1, value: UInt64(next()))
      }
    }
    return bench.recovers()
  }

  private final class Source: EntropySource {
    func bytes(_ count: Int) -> [UInt8] { Array(repeating: 0x5A, count: count) }
  }

  private final class ScratchBytes: SharedBytes {
    static let count = 1 << 20
    // SAFETY: freed by deinit alone.
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 4096)

    init() { bytes.initializeMemory(as: UInt8.self, repeating: 0) }
    deinit { bytes.deallocate() }
  }

  /// Programs that take what they are given, or do not, as the bytes say.
  private final class Streams: StreamBackend {
    private static let most = 16
    var onConnect: ((any HostStream, UInt32) -> Void)?
    private var all: [Stream] = []

    func connect(toHostPort port: UInt32) -> any HostStream { make() }

    func make() -> Stream {
      let stream = Stream()
      all.append(stream)
      if all.count > Self.most { all.removeFirst() }
      return stream
    }

    func act(_ what: UInt8, _ value: UInt8) {
      guard what & 7 != 0 else { return onConnect?(make(), UInt32(value & 3)) ?? () }
      guard !all.isEmpty else { return }
      let stream = all[Int(value) % all.count]
      switch what & 7 {
      case 1, 2: stream.onOpen?()
      case 3:
        let room = min(stream.room?() ?? 0, Int(value) << 4)
        if room > 0 { stream.onReceive?(Array(repeating: value, count: room)) }
      case 4:
        stream.capacity = Int(value) << 8
        stream.onWritable?()
      case 5: stream.onEnd?(value & 1 != 0)
      default: break
      }
    }
  }

  private final class Stream: HostStream {
    var onOpen: (() -> Void)?
    var onReceive: (([UInt8]) -> Void)?
    var room: (() -> Int)?
    var onWritable: (() -> Void)?
    var onEnd: ((Bool) -> Void)?
    var capacity = 64

    func accept(hostPort: UInt32) {}
    func hasRoom() {}
    func finish() {}

    func write(_ bytes: [UInt8]) -> Int {
      let count = min(bytes.count, capacity)
      capacity -= count
      return count
    }

    func close() { (onOpen, onReceive, room, onWritable, onEnd) = (nil, nil, nil, nil, nil) }
  }

  private final class HostEnd: ChannelBackend {
    var onReceive: (([UInt8]) -> Void)?
    var room: (() -> Int)?
    var onWritable: (() -> Void)?
    var onConnectionChange: (() -> Void)?
    var isConnected = false { didSet { onConnectionChange?() } }
    var capacity = 8

    func hasRoom() {}

    func write(_ bytes: [UInt8]) -> Int {
      let count = min(bytes.count, capacity)
      capacity -= count
      return count
    }
  }

  private final class Bench {
    /// Each queue has its rings in a KiB of its own, from here on.
    private static let rings = 0x1000
    private static let entries = 8
    private static let queues = 8

    let memory = StorageFuzzing.Memory()
    private(set) var card: VirtioPCI
    private var device: any VirtioDevice
    private var again: [Int] = []
    private var isSound = true
    private let clock = InputFuzzing.Clock()
    private let wire: Wire
    private let channel = HostEnd()
    private let streams = Streams()
    /// Makes the device anew, from what it is now.
    private var renew: () -> any VirtioDevice
    /// A buffer that every such device takes at once: its queue, and bytes either way.
    private let probe: (queue: Int, readable: Int, writable: Int)

    init(kind: Int) {
      let isUnfinished = kind == 9
      let wire = Wire(takesUnfinished: isUnfinished, queues: isUnfinished ? 2 : 1)
      self.wire = wire
      let (channel, clock) = (channel, clock)
      switch kind {
      case 0:
        (device, renew) = Self.pair { VirtioEntropy(source: Source(), state: $0) }
        probe = (0, 0, 16)
      case 1, 2:
        (device, renew) = Self.pair { VirtioInput(kind == 1 ? .keyboard : .tablet, state: $0) }
        probe = (1, 8, 0)
      case 3, 9:
        (device, renew) = Self.pair {
          VirtioNet(address: [2, 0, 0, 0, 0, 1], pairs: 2, backend: wire, state: $0)
        }
        probe = (1, 72, 0)
      case 4:
        (device, renew) = Self.pair { VirtioBalloon(clock: clock, state: $0) }
        probe = (0, 4, 0)
      case 5:
        (device, renew) = Self.pair {
          VirtioConsole([.init(name: "a", backend: channel)], state: $0)
        }
        probe = (3, 8, 0)
      case 7:
        (device, renew) = Self.pair {
          VirtioGPU(memory: ScratchBytes(), outputs: 2, state: $0)
        }
        probe = (1, 32, 0)
      case 8:
        let streams = streams
        (device, renew) = Self.pair {
          VirtioVsock(identifier: 3, backend: streams, state: $0)
        }
        probe = (1, 44, 0)
      default:
        (device, renew) = Self.pair {
          VirtioSound(
            clock: clock, sink: AC97Fuzzing.Sink(), source: SilentSource(), state: $0)
        }
        probe = (0, 4, 8)
      }
      card = VirtioPCI(
        device, memory: memory, messages: VirtioFuzzing.Messages(), log: { _ in }, state: nil)
      connect()
      card.function.setRegister(PCIRegister.command, width: 2, value: 6)
    }

    private static func pair<Device: VirtioDevice & StatefulDevice>(
      _ make: @escaping (Device.State?) -> Device
    ) -> (any VirtioDevice, () -> any VirtioDevice) {
      var device = make(nil)
      return (
        device,
        {
          device = make(device.saveState())
          return device
        }
      )
    }

    private func connect() { card.onNotifyAgain = { [unowned self] in again.append($0) } }

    func restore() {
      let state = card.saveState()
      again = []
      clock.forgetTimers()
      device = renew()
      card = VirtioPCI(
        device, memory: memory, messages: VirtioFuzzing.Messages(), log: { _ in }, state: state)
      connect()
      card.resume()
    }

    func settle(_ count: Int) {
      for _ in 0..<count where !again.isEmpty { card.ring(again.removeFirst()) }
    }

    func put(_ bytes: [UInt8], at offset: Int) {
      memory.bytes.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    }

    /// A driver that does as it should up to DRIVER_OK, with split rings.
    func start(features: UInt64) {
      card.write(offset: 0x14, width: 1, value: 0)
      card.write(offset: 0x14, width: 1, value: 3)
      let wanted = (features | VirtioFeature.version1) & ~VirtioFeature.ringPacked
      for half: UInt64 in 0..<2 {
        card.write(offset: 0x08, width: 4, value: half)
        card.write(
          offset: 0x0C, width: 4,
          value: (wanted & card.offeredFeatures) >> (half * 32) & 0xFFFF_FFFF)
      }
      card.write(offset: 0x14, width: 1, value: 0x0B)
      for queue in 0..<Self.queues {
        card.write(offset: 0x16, width: 2, value: UInt64(queue))
        card.write(offset: 0x18, width: 2, value: UInt64(Self.entries))
        for (index, register) in [0x20, 0x28, 0x30].enumerated() {
          let place = UInt64(Self.rings + queue * 0x400 + index * 0x100)
          card.write(offset: UInt64(register), width: 4, value: place)
          card.write(offset: UInt64(register) + 4, width: 4, value: 0)
        }
        card.write(offset: 0x1C, width: 2, value: 1)
      }
      card.write(offset: 0x14, width: 1, value: 0x0F)
    }

    private func ring(_ queue: UInt8) -> Int { Self.rings + Int(queue) % Self.queues * 0x400 }

    /// A descriptor, of which page 0xFF lies outside RAM. The high bits of `flags` are
    /// those of its length.
    func describe(_ queue: UInt8, _ index: UInt8, page: UInt8, count: UInt8, flags: UInt8) {
      let address = page == 0xFF ? UInt64.max - 64 : UInt64(page) << 8
      put(
        LittleEndian.bytes(address) + LittleEndian.bytes(UInt32(count) << UInt32(flags >> 4))
          + LittleEndian.bytes(UInt16(flags & 7)) + LittleEndian.bytes(UInt16(index &+ 1) & 7),
        at: ring(queue) + Int(index & 7) * 16)
    }

    /// Makes up to a ring of chains available.
    func expose(_ queue: UInt8, head: UInt8, index: UInt8) {
      let place = ring(queue) + 0x100
      put(LittleEndian.bytes(UInt16(head)), at: place + 4 + Int(head & 7) * 2)
      put(LittleEndian.bytes(UInt16(index)), at: place + 2)
      card.ring(Int(queue) % Self.queues)
    }

    /// What the host does to the device meanwhile.
    func act(_ what: UInt8, _ value: UInt8) {
      clock.advance(by: UInt64(value) << (what & 4 == 0 ? 14 : 20))
      if let input = device as? VirtioInput {
        input.deliver(.key(KeyCode(UInt16(value)), pressed: what & 1 != 0))
        input.deliver(.absolutePointer(x: UInt16(value) << 8, y: UInt16(what), buttons: [.left]))
      }
      if let balloon = device as? VirtioBalloon {
        switch what & 3 {
        case 0: balloon.setTarget(UInt64(value) << 12)
        case 1: balloon.askForStatistics()
        case 2: _ = balloon.askForHints()
        default: balloon.releaseHints()
        }
      }
      if let gpu = device as? VirtioGPU {
        gpu.resize(width: Int(value) << 4, height: Int(what) << 4)
        // A command's header where the driver's buffers may be, and small numbers after it.
        let kinds: [UInt32] = [0x100, 0x101, 0x102, 0x103, 0x104, 0x105, 0x106, 0x107, 0x300]
        let words =
          [kinds[Int(what) % kinds.count], 0, 0, 0, 0, 0]
          + (0..<8).map { UInt32(value >> $0 & 15) }
        put(words.flatMap { LittleEndian.bytes($0) }, at: 0x8000 + Int(value & 0x7F) << 8)
        if let update = gpu.takeUpdate(), !Self.isSound(update) { isSound = false }
      }
      if let net = device as? VirtioNet {
        switch what & 3 {
        case 0: net.setLink(value & 1 != 0)
        case 1: wire.isConnected = value & 1 != 0
        case 2 where wire.takesUnfinished: wire.bring(what, value)
        default: wire.turn()
        }
        if !wire.isSound { isSound = false }
      }
      if device is VirtioVsock {
        // A packet's header where the driver's buffers may be: from the guest to the host.
        let ports = LittleEndian.bytes(UInt32(value & 3)) + LittleEndian.bytes(UInt32(value & 3))
        put(
          LittleEndian.bytes(UInt64(3)) + LittleEndian.bytes(UInt64(2)) + ports
            + LittleEndian.bytes(UInt32(value)) + [1, 0, what & 7, 0, value & 3, 0, 0, 0]
            + LittleEndian.bytes(UInt32(value) << 10) + [0, 0, 0, 0],
          at: 0x8000 + Int(value & 0x7F) << 8)
        streams.act(what, value)
      }
      switch what & 3 {
      case 0: channel.isConnected = value & 1 != 0
      case 1: channel.onReceive?(Array(repeating: value, count: Int(value)))
      default:
        channel.capacity = Int(value)
        channel.onWritable?()
      }
    }

    /// Whether a display can read the picture and its damage.
    private static func isSound(_ update: ScanoutUpdate) -> Bool {
      let scanout = update.scanout
      return scanout.offset >= 0 && scanout.width > 0 && scanout.height > 0
        && scanout.width * 4 <= scanout.stride
        && scanout.offset + scanout.stride * (scanout.height - 1) + scanout.width * 4
          <= ScratchBytes.count
        && update.damage.allSatisfy {
          $0.x >= 0 && $0.y >= 0 && $0.x + $0.width <= scanout.width
            && $0.y + $0.height <= scanout.height
        }
    }

    func recovers() -> Bool {
      guard isSound, wire.isSound else { return false }
      card.reset()
      guard wire.offloads.isEmpty, wire.used == 1 else { return false }
      again = []
      card.function.setRegister(PCIRegister.command, width: 2, value: 6)
      put(Array(repeating: 0, count: Self.queues * 0x400), at: Self.rings)
      start(features: 0)
      let (queue, readable, writable) = probe
      // Far from the rings, and zero: no command of any device.
      put(Array(repeating: 0, count: 0x100), at: 0x8000)
      let pieces = [(readable, UInt16(0)), (writable, 2)].filter { $0.0 > 0 }
      for (index, (count, flags)) in pieces.enumerated() {
        let isLast = index == pieces.count - 1
        put(
          LittleEndian.bytes(UInt64(0x8000 + index * 0x80)) + LittleEndian.bytes(UInt32(count))
            + LittleEndian.bytes(flags | (isLast ? 0 : 1)) + LittleEndian.bytes(UInt16(index + 1)),
          at: ring(UInt8(queue)) + index * 16)
      }
      expose(UInt8(queue), head: 0, index: 1)
      settle(1000)
      return card.failure == nil && memory.bytes[ring(UInt8(queue)) + 0x202] == 1
    }
  }
}
