import DeviceModel
import Devices
import Testing

/// Notes the messages that were sent.
final class FakeMessages: MessageInterrupts {
  private(set) var routes: [Int: (address: UInt64, data: UInt32)] = [:]
  var sent: [Int] = []

  func route(vector: Int, address: UInt64, data: UInt32) { routes[vector] = (address, data) }
  func signal(vector: Int) { sent.append(vector) }
}

/// A virtio device on its transport, and the driver's hand on its registers.
final class VirtioBench {
  static let memorySize = 1 << 20

  let memory: FakeMemory
  let messages = FakeMessages()
  let transport: VirtioPCI
  var log: [String] = []

  init(
    _ device: any VirtioDevice, memory: FakeMemory = FakeMemory(size: VirtioBench.memorySize),
    state: VirtioPCI.State? = nil
  ) {
    self.memory = memory
    var lines: (String) -> Void = { _ in }
    transport = VirtioPCI(
      device, memory: memory, messages: messages, log: { lines($0) }, state: state)
    lines = { [unowned self] in log.append($0) }
    transport.onNotifyAgain = { [unowned self] in again.append($0) }
    if state == nil { transport.function.setRegister(PCIRegister.command, width: 2, value: 6) }
  }

  /// Queues that the device wants to be told of once more.
  private var again: [Int] = []

  /// Tells it, for as long as it asks.
  func settle() {
    while !again.isEmpty { transport.ring(again.removeFirst()) }
  }

  // Offsets in the common configuration structure.
  static let featureSelect: UInt64 = 0x00
  static let feature: UInt64 = 0x04
  static let driverFeatureSelect: UInt64 = 0x08
  static let driverFeature: UInt64 = 0x0C
  static let configurationVector: UInt64 = 0x10
  static let statusRegister: UInt64 = 0x14
  static let queueSelect: UInt64 = 0x16
  static let queueSize: UInt64 = 0x18
  static let queueVector: UInt64 = 0x1A
  static let queueEnable: UInt64 = 0x1C

  var status: UInt8 {
    get { UInt8(transport.read(offset: Self.statusRegister, width: 1) & 0xFF) }
    set { transport.write(offset: Self.statusRegister, width: 1, value: UInt64(newValue)) }
  }

  var needsReset: Bool { status & 0x40 != 0 }

  func set(_ register: UInt64, _ width: Int, _ value: UInt64) {
    transport.write(offset: register, width: width, value: value)
  }

  var offered: UInt64 {
    (UInt64(0)..<2).reduce(UInt64(0)) { features, half in
      set(Self.featureSelect, 4, half)
      return features | transport.read(offset: Self.feature, width: 4) << (half * 32)
    }
  }

  /// ACKNOWLEDGE, DRIVER, features and FEATURES_OK.
  func negotiate(_ features: UInt64) {
    status = 0
    status = 1
    status = 3
    for half: UInt64 in 0..<2 {
      set(Self.driverFeatureSelect, 4, half)
      set(Self.driverFeature, 4, features >> (half * 32) & 0xFFFF_FFFF)
    }
    status = 0x0B
  }

  func enable(_ queue: Int, size: Int, descriptors: UInt64, driver: UInt64, device: UInt64) {
    set(Self.queueSelect, 2, UInt64(queue))
    set(Self.queueSize, 2, UInt64(size))
    for (register, value) in [(0x20, descriptors), (0x28, driver), (0x30, device)]
      as [(UInt64, UInt64)]
    {
      set(register, 4, value & 0xFFFF_FFFF)
      set(register + 4, 4, value >> 32)
    }
    set(Self.queueEnable, 2, 1)
  }

  func enableMessages(vectors: Int) {
    let place = capability(0x11) ?? 0
    transport.function.setRegister(place + 2, width: 2, value: 0x8000)
    for vector in 0..<UInt64(vectors) {
      set(0x4000 + vector * 16, 4, 0xFEE0_0000)
      set(0x4000 + vector * 16 + 8, 4, 0x40 + vector)
      set(0x4000 + vector * 16 + 12, 4, 0)
    }
  }

  /// Where the first capability of a kind is.
  func capability(_ id: UInt8, type: UInt8? = nil) -> Int? {
    let bytes = transport.function.configuration.bytes
    var place = Int(bytes[0x34])
    for _ in 0..<48 where place != 0 {
      if bytes[place] == id && (type == nil || bytes[place + 3] == type) { return place }
      place = Int(bytes[place + 1])
    }
    return nil
  }
}

/// The driver's end of one queue, in either format. Buffers lie where the test says.
final class DriverQueue {
  struct Piece {
    var address: UInt64
    var count: UInt32
    var isWritable: Bool

    static func readable(_ address: UInt64, _ count: Int) -> Piece {
      Piece(address: address, count: UInt32(count), isWritable: false)
    }

    static func writable(_ address: UInt64, _ count: Int) -> Piece {
      Piece(address: address, count: UInt32(count), isWritable: true)
    }
  }

  static let next: UInt16 = 1
  static let write: UInt16 = 2
  static let indirect: UInt16 = 4

  let bench: VirtioBench
  let number: Int
  let size: Int
  let isPacked: Bool
  let base: UInt64
  var descriptors: UInt64 { base }
  var driver: UInt64 { base + 0x2000 }
  var device: UInt64 { base + 0x4000 }
  var tables: UInt64 { base + 0x6000 }

  private var nextDescriptor = 0
  private var availableIndex: UInt16 = 0
  private var usedIndex: UInt16 = 0
  private var wrap = true
  private var usedPlace = 0
  private var usedWrap = true
  private var lengths: [UInt16: Int] = [:]

  init(
    _ bench: VirtioBench, _ number: Int = 0, size: Int = 8, packed: Bool, base: UInt64 = 0x1_0000
  ) {
    self.bench = bench
    self.number = number
    self.size = size
    isPacked = packed
    self.base = base
    bench.enable(number, size: size, descriptors: descriptors, driver: driver, device: device)
  }

  private init(_ other: DriverQueue, on bench: VirtioBench) {
    self.bench = bench
    number = other.number
    size = other.size
    isPacked = other.isPacked
    base = other.base
    nextDescriptor = other.nextDescriptor
    availableIndex = other.availableIndex
    usedIndex = other.usedIndex
    wrap = other.wrap
    usedPlace = other.usedPlace
    usedWrap = other.usedWrap
    lengths = other.lengths
  }

  /// The same driver, whose device was restored on another bench.
  func continued(on bench: VirtioBench) -> DriverQueue { DriverQueue(self, on: bench) }

  func put(_ value: some FixedWidthInteger, at address: UInt64) {
    for index in 0..<value.bitWidth / 8 {
      bench.memory.bytes[Int(address) + index] = UInt8(
        truncatingIfNeeded: value >> (index * 8))
    }
  }

  func get<Number: FixedWidthInteger>(_ address: UInt64, _: Number.Type = Number.self) -> Number {
    (0..<Number.bitWidth / 8).reduce(0) {
      $0 | Number(truncatingIfNeeded: bench.memory.bytes[Int(address) + $1]) << ($1 * 8)
    }
  }

  /// Writes a descriptor as it is, in the format of the ring.
  func describe(
    _ index: Int, _ address: UInt64, _ count: UInt32, flags: UInt16, link: UInt16 = 0,
    table: UInt64? = nil
  ) {
    let place = (table ?? descriptors) + UInt64(index) * 16
    put(address, at: place)
    put(count, at: place + 8)
    put(isPacked ? link : flags, at: place + 12)
    put(isPacked ? flags : link, at: place + 14)
  }

  /// The flags that make a packed descriptor available in the present round.
  var availableFlags: UInt16 { wrap ? 0x80 : 0x8000 }

  /// Makes a chain available, through an indirect table if so wanted.
  @discardableResult
  func add(_ pieces: [Piece], indirect: Bool = false) -> UInt16 {
    let identifier = UInt16(nextDescriptor)
    var pieces = pieces
    var first: UInt16 = 0
    if indirect {
      let table = tables + UInt64(nextDescriptor) * 0x100
      for (index, piece) in pieces.enumerated() {
        let isLast = index == pieces.count - 1
        describe(
          index, piece.address, piece.count,
          flags: (piece.isWritable ? Self.write : 0) | (isLast || isPacked ? 0 : Self.next),
          link: UInt16(index + 1), table: table)
      }
      pieces = [.readable(table, pieces.count * 16)]
      first = Self.indirect
    }
    lengths[identifier] = pieces.count
    if isPacked {
      for (index, piece) in pieces.enumerated() {
        let more: UInt16 = index == pieces.count - 1 ? 0 : Self.next
        describe(
          nextDescriptor, piece.address, piece.count,
          flags: availableFlags | (piece.isWritable ? Self.write : 0) | more | first,
          link: identifier)
        advance()
      }
    } else {
      for (index, piece) in pieces.enumerated() {
        let more: UInt16 = index == pieces.count - 1 ? 0 : Self.next
        let place = nextDescriptor
        nextDescriptor = (nextDescriptor + 1) % size
        describe(
          place, piece.address, piece.count,
          flags: (piece.isWritable ? Self.write : 0) | more | first, link: UInt16(nextDescriptor))
      }
      expose(identifier)
    }
    return identifier
  }

  private func advance() {
    nextDescriptor += 1
    if nextDescriptor == size {
      nextDescriptor = 0
      wrap.toggle()
    }
  }

  /// Puts a head into a split ring's available ring.
  func expose(_ head: UInt16, count: UInt16 = 1) {
    put(head, at: driver + 4 + UInt64(availableIndex) % UInt64(size) * 2)
    availableIndex &+= count
    put(availableIndex, at: driver + 2)
  }

  func kick() {
    bench.set(0x3000 + UInt64(number) * 4, 2, UInt64(number))
    bench.settle()
  }

  /// The next buffer that the device gave back.
  func takeUsed() -> (identifier: UInt16, written: UInt32)? {
    if isPacked {
      let place = descriptors + UInt64(usedPlace) * 16
      let flags: UInt16 = get(place + 14)
      let expected = usedWrap
      guard (flags & 0x80 != 0) == expected, (flags & 0x8000 != 0) == expected else { return nil }
      let identifier: UInt16 = get(place + 12)
      usedPlace += lengths[identifier] ?? 1
      if usedPlace >= size {
        usedPlace -= size
        usedWrap.toggle()
      }
      return (identifier, get(place + 8))
    }
    guard get(device + 2, UInt16.self) != usedIndex else { return nil }
    let place = device + 4 + UInt64(usedIndex) % UInt64(size) * 8
    usedIndex &+= 1
    return (UInt16(truncatingIfNeeded: get(place, UInt32.self)), get(place + 4))
  }
}

/// Fills what it is given with a pattern, and counts what it was told.
final class PatternSource: EntropySource {
  private(set) var asked: [Int] = []

  func bytes(_ count: Int) -> [UInt8] {
    asked.append(count)
    return (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 1) }
  }
}
