import DeviceModel

/// The memory balloon (VIRTIO 1.2, section 5.5): the guest gives pages up when it is asked
/// to, tells which ones it does not use, and how its memory is.
package final class VirtioBalloon: VirtioDevice, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    var features: UInt64 = 0
    /// Pages that the guest is asked to give up, and has given up.
    var target: UInt32 = 0
    var actual: UInt32 = 0
    var poison: UInt32 = 0
    var statistics = BalloonStatistics()
    /// The driver's buffer, kept until it shall fill in statistics again.
    var statisticsBuffer: VirtqueueChain?
    var hinting = BalloonHinting()
  }

  private enum Feature {
    static let statistics: UInt64 = 1 << 1
    static let deflateWhenShort: UInt64 = 1 << 2
    static let hinting: UInt64 = 1 << 3
    static let poison: UInt64 = 1 << 4
    static let reporting: UInt64 = 1 << 5

    static let all = statistics | deflateWhenShort | hinting | poison | reporting
  }

  private enum Role {
    case inflate, deflate, statistics, hinting, reporting
  }

  /// Pages here are of this size, whatever the guest's (section 5.5.6).
  package static let pageSize: UInt64 = 4096
  private static let queueSize: UInt16 = 128
  /// The longest list of pages, in bytes; drivers' lists have 1 to 4 KiB.
  private static let longestList = 16 << 10
  /// Lists in one go: giving their pages back keeps the device lock.
  private static let mostAtOnce = 8

  package let type: UInt16 = 5
  package let name = "virtio-balloon"
  package let classCode: UInt32 = 0x00FF00
  package let features: UInt64 = Feature.all
  package let queueSizes = Array(repeating: VirtioBalloon.queueSize, count: 5)
  package weak var transport: (any VirtioTransport)?
  /// Called after the guest said that it has given up more or less.
  package var onChange: (() -> Void)?
  private let clock: any DeviceClock
  private var state: State

  package init(clock: any DeviceClock, state: State?) {
    self.clock = clock
    self.state = state ?? State()
  }

  package func saveState() -> State { state }

  /// What is asked for outlives a reset: the guest's next driver gives it up again.
  package func reset() {
    let had = state.actual
    state = State(target: state.target)
    if had != 0 { onChange?() }
  }

  package func start(features: UInt64) { state.features = features }
  package func resume() {}

  // MARK: For the machine

  /// Bytes that the guest was asked to give up.
  package var target: UInt64 { UInt64(state.target) * Self.pageSize }

  /// Bytes that the guest has given up.
  package var actual: UInt64 { UInt64(state.actual) * Self.pageSize }

  /// As the guest told last.
  package var statistics: BalloonStatistics { state.statistics }

  /// Pages that the guest did not use when it was asked for hints.
  package var hinting: BalloonHinting { state.hinting }

  /// Asks the guest to give up `bytes`, in whole pages, in all.
  package func setTarget(_ bytes: UInt64) {
    let pages = UInt32(clamping: bytes / Self.pageSize)
    guard pages != state.target else { return }
    state.target = pages
    transport?.configurationChanged()
  }

  /// Has the guest tell how its memory is; `statistics` changes when it did.
  package func askForStatistics() {
    guard let transport, let chain = state.statisticsBuffer,
      let queue = roles.firstIndex(of: .statistics)
    else { return }
    state.statisticsBuffer = nil
    transport.complete(chain, written: 0, on: queue)
  }

  /// Has the guest tell which pages it does not use (section 5.5.6.5).
  ///
  /// Saving a machine does not ask: it reads no page that the host does not hold, and what a
  /// Linux would hint at, free blocks of 4 MiB, it has reported two seconds after it let go of
  /// them. Older kernels, which only hint, are not worth a save that waits for its guest.
  ///
  /// - Returns: `false` when its driver cannot.
  package func askForHints() -> Bool {
    guard transport?.isRunning == true, state.features & Feature.hinting != 0 else { return false }
    state.hinting.begin()
    transport?.configurationChanged()
    return true
  }

  /// Lets the guest use the pages of its hints again, which are forgotten.
  package func releaseHints() {
    guard state.hinting.command != BalloonHinting.done else { return }
    state.hinting.end()
    transport?.configurationChanged()
  }

  // MARK: Configuration space

  /// struct virtio_balloon_config (section 5.5.4).
  package func readConfiguration(_ offset: Int) -> UInt8 {
    let words = [state.target, state.actual, state.hinting.command, state.poison]
    guard offset / 4 < words.count else { return 0 }
    return UInt8(truncatingIfNeeded: words[offset / 4] >> (8 * (offset % 4)))
  }

  package func writeConfiguration(_ offset: Int, _ value: UInt8) {
    func put(_ word: inout UInt32) {
      let shift = 8 * UInt32(offset % 4)
      word = word & ~(0xFF << shift) | UInt32(value) << shift
    }
    switch offset {
    case 4..<8:
      let had = state.actual
      put(&state.actual)
      if state.actual != had { onChange?() }
    case 12..<16: put(&state.poison)
    default: break
    }
  }

  // MARK: Queues

  /// What each queue is for: those of features that were not agreed upon do not exist, and
  /// the following ones take their numbers, as drivers count them.
  private var roles: [Role] {
    var roles: [Role] = [.inflate, .deflate]
    if state.features & Feature.statistics != 0 { roles.append(.statistics) }
    if state.features & Feature.hinting != 0 { roles.append(.hinting) }
    if state.features & Feature.reporting != 0 { roles.append(.reporting) }
    return roles
  }

  package func notify(queue: Int) {
    let roles = roles
    guard let transport, roles.indices.contains(queue) else { return }
    for _ in 0..<Self.mostAtOnce {
      guard let chain = transport.nextChain(queue) else { return }
      switch roles[queue] {
      case .inflate: guard inflate(chain, transport) else { return }
      case .deflate: break  // Pages come back when they are touched.
      case .statistics:
        guard keep(chain, transport, queue) else { return }
        continue
      case .hinting: guard takeHint(chain, transport) else { return }
      case .reporting: release(chain, transport)
      }
      transport.complete(chain, written: 0, on: queue)
    }
    transport.notifyAgain(queue)
  }

  /// A list of page numbers; `false` when the device is broken now.
  private func inflate(_ chain: VirtqueueChain, _ transport: any VirtioTransport) -> Bool {
    let count = chain.readableCount
    guard count <= Self.longestList, count % 4 == 0 else {
      transport.fail("a list of pages of \(count) bytes")
      return false
    }
    guard let bytes = transport.read(chain, from: 0, count: count) else { return false }
    let pages = stride(from: 0, to: count, by: 4).map {
      UInt64(LittleEndian.number(bytes, at: $0, UInt32.self))
    }.sorted()
    // In as few calls of the host as can be: pages of one list are often neighbours.
    var start = 0
    for index in pages.indices {
      let isLast = index + 1 == pages.count || pages[index + 1] > pages[index] + 1
      guard isLast else { continue }
      let first = pages[start] * Self.pageSize
      let length = Int((pages[index] - pages[start] + 1) * Self.pageSize)
      // A page that is not RAM has nothing to give back.
      try? transport.memory.release(at: first, count: length)
      start = index + 1
    }
    return true
  }

  /// Pages that the guest neither uses nor cares about (section 5.5.6.7), unless it counts
  /// on what is in them.
  private func release(_ chain: VirtqueueChain, _ transport: any VirtioTransport) {
    guard state.features & Feature.poison == 0 || state.poison == 0 else { return }
    for range in chain.writable {
      try? transport.memory.release(at: range.address, count: Int(range.count))
    }
  }

  /// struct virtio_balloon_stat: tag and value of each, packed.
  private func keep(
    _ chain: VirtqueueChain, _ transport: any VirtioTransport, _ queue: Int
  ) -> Bool {
    // There is one buffer; whoever sends another gets the first one back.
    if let previous = state.statisticsBuffer {
      state.statisticsBuffer = nil
      transport.complete(previous, written: 0, on: queue)
    }
    let count = min(chain.readableCount, BalloonStatistics.longest)
    guard let bytes = transport.read(chain, from: 0, count: count) else { return false }
    state.statistics.take(bytes, seconds: clock.wallClock.seconds)
    state.statisticsBuffer = chain
    return true
  }

  private func takeHint(_ chain: VirtqueueChain, _ transport: any VirtioTransport) -> Bool {
    if chain.readableCount > 0 {
      guard let bytes = transport.read(chain, from: 0, count: min(chain.readableCount, 4)),
        bytes.count == 4
      else {
        transport.fail("a command of free page hints without its number")
        return false
      }
      state.hinting.take(LittleEndian.number(bytes, at: 0, UInt32.self))
    }
    for range in chain.writable { state.hinting.add(range) }
    return true
  }
}

/// What a guest tells of its memory (VIRTIO 1.2, section 5.5.6.4).
package struct BalloonStatistics: Codable, Sendable, Equatable {
  /// By tag, in the order of their numbers; names are those of QEMU.
  package static let names = [
    "stat-swap-in", "stat-swap-out", "stat-major-faults", "stat-minor-faults",
    "stat-free-memory", "stat-total-memory", "stat-available-memory", "stat-disk-caches",
    "stat-htlb-pgalloc", "stat-htlb-pgfail",
  ]
  private static let entrySize = 10
  /// Twice as many as there are, for drivers that know more.
  static let longest = 2 * names.count * entrySize

  /// By name; memory in bytes.
  package private(set) var values: [String: UInt64] = [:]
  /// When the guest told, in seconds since 1970; 0 before it did.
  package private(set) var time: Int64 = 0

  mutating func take(_ bytes: [UInt8], seconds: Int64) {
    values = [:]
    time = seconds
    for at in stride(from: 0, through: bytes.count - Self.entrySize, by: Self.entrySize) {
      let tag = Int(LittleEndian.number(bytes, at: at, UInt16.self))
      let value = LittleEndian.number(bytes, at: at + 2, UInt64.self)
      // All ones is what Linux says of what it does not know.
      if tag < Self.names.count, value != .max { values[Self.names[tag]] = value }
    }
  }
}

/// Free page hints (VIRTIO 1.2, section 5.5.6.5): pages whose contents nobody needs, unless
/// they were written since. The driver holds them back until it is told that they are done
/// with.
package struct BalloonHinting: Codable, Sendable, Equatable {
  static let stop: UInt32 = 0
  static let done: UInt32 = 1
  private static let mostRanges = 1 << 16

  /// As configuration space has it.
  package private(set) var command = BalloonHinting.done
  /// Which command the driver answers at present.
  private var answered = BalloonHinting.stop
  /// The driver told all it had.
  package private(set) var isComplete = false
  /// Neighbours are one range.
  package private(set) var ranges: [VirtqueueChain.Segment] = []
  private var last: UInt32 = 1

  mutating func begin() {
    last = last == .max ? 2 : last + 1
    self = BalloonHinting(command: last, last: last)
  }

  mutating func end() { self = BalloonHinting(command: Self.done, last: last) }

  private init(command: UInt32, last: UInt32) {
    self.command = command
    self.last = last
  }

  init() {}

  mutating func take(_ command: UInt32) {
    if command == Self.stop, answered == self.command { isComplete = true }
    answered = command
  }

  mutating func add(_ range: VirtqueueChain.Segment) {
    guard answered == command, command > Self.done, !isComplete else { return }
    if let previous = ranges.last, previous.address + UInt64(previous.count) == range.address {
      let (sum, overflows) = previous.count.addingReportingOverflow(range.count)
      if !overflows {
        ranges[ranges.count - 1].count = sum
        return
      }
    }
    // Hints are a favour: those beyond are not needed.
    if ranges.count < Self.mostRanges { ranges.append(range) }
  }
}
