import DeviceModel

/// The network card (VIRTIO 1.2, section 5.1). Checksums and segments that the driver leaves
/// to the card are made here, unless what its cable leads to takes frames without, and has
/// such frames for drivers that take them, too.
package final class VirtioNet: VirtioDevice, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    var features: UInt64 = 0
    var filter: VirtioNetFilter
    /// Queue pairs that the driver uses.
    var pairs = 1
    /// Whether the cable is plugged in, whatever is at its other end.
    var isPlugged = true
    /// The driver is asked to make itself known to the network.
    var mustAnnounce = false
    /// Which of the receive offloads that were agreed upon the driver wants, by their feature
    /// bits; `nil` for all, as at first.
    var wantedOffloads: UInt64?
  }

  enum Feature {
    static let checksum: UInt64 = 1 << 0
    static let guestChecksum: UInt64 = 1 << 1
    static let controlOffloads: UInt64 = 1 << 2
    static let address: UInt64 = 1 << 5
    static let guestTCP4: UInt64 = 1 << 7
    static let guestTCP6: UInt64 = 1 << 8
    static let guestECN: UInt64 = 1 << 9
    static let tcp4: UInt64 = 1 << 11
    static let tcp6: UInt64 = 1 << 12
    static let ecn: UInt64 = 1 << 13
    static let mergeableBuffers: UInt64 = 1 << 15
    static let status: UInt64 = 1 << 16
    static let control: UInt64 = 1 << 17
    static let receiveModes: UInt64 = 1 << 18
    static let vlan: UInt64 = 1 << 19
    static let moreReceiveModes: UInt64 = 1 << 20
    static let announce: UInt64 = 1 << 21
    static let multiqueue: UInt64 = 1 << 22
    static let setAddress: UInt64 = 1 << 23

    static let all =
      checksum | guestChecksum | address | tcp4 | tcp6 | ecn | mergeableBuffers | status | control
      | receiveModes | vlan | moreReceiveModes | announce | setAddress
    /// What the driver may turn off and on again (section 5.1.6.5.7).
    static let receiveOffloads = guestChecksum | guestTCP4 | guestTCP6 | guestECN
    /// Of a card whose cable brings unfinished frames.
    static let unfinished = controlOffloads | guestTCP4 | guestTCP6 | guestECN
  }

  private enum Status {
    static let linkUp: UInt8 = 1
    static let announce: UInt8 = 2
  }

  /// Classes of commands.
  private enum Command {
    static let queues: UInt8 = 4
    static let offloads: UInt8 = 5
  }

  package static let maximumPairs = 8
  static let queueSize: UInt16 = 256
  private static let controlQueueSize: UInt16 = 64
  package let type: UInt16 = 1
  package let name = "virtio-net"
  package let classCode: UInt32 = 0x020000
  package var features: UInt64 {
    Feature.all | (maximumPairs > 1 ? Feature.multiqueue : 0)
      | (backend?.takesUnfinished == true ? Feature.unfinished : 0)
  }
  package let queueSizes: [UInt16]
  package weak var transport: (any VirtioTransport)?
  private(set) var backend: (any NetworkBackend)?
  private let maximumPairs: Int
  private var ownAddress: [UInt8]
  private(set) var state: State
  /// The queue pair that a flow was last sent on (section 5.1.6.5.6), by its hash, where the
  /// backend does not know.
  var steering = FlowTable()
  var hasRefused = false

  /// - Parameters:
  ///   - address: six bytes.
  ///   - pairs: queue pairs, 1 … `maximumPairs`.
  ///   - backend: `nil` for a card without a cable: its link is down. A card that goes on
  ///     may have had another kind before: its driver gets what this one has, within what
  ///     was agreed upon.
  package init(address: [UInt8], pairs: Int, backend: (any NetworkBackend)?, state: State?) {
    maximumPairs = min(max(pairs, 1), Self.maximumPairs)
    ownAddress = address
    queueSizes =
      Array(repeating: Self.queueSize, count: 2 * maximumPairs) + [Self.controlQueueSize]
    self.state = state ?? State(filter: VirtioNetFilter(address: address))
    self.state.pairs = min(max(self.state.pairs, 1), maximumPairs)
    connect(backend)
  }

  /// Gives a card without a cable one; what it offers to drivers depends on that.
  package func connect(_ backend: (any NetworkBackend)?) {
    self.backend = backend
    backend?.onReceive = { [unowned self] in receive($0) }
    backend?.onConnectionChange = { [unowned self] in linkChanged() }
    _ = tellBackend()
  }

  /// Has the backend do as was agreed upon with the driver.
  ///
  /// - Returns: whether it uses as many queues as the driver does, if it has them.
  private func tellBackend() -> Bool {
    guard let backend else { return true }
    backend.accept(receiveOffloads)
    return backend.use(queues: min(state.pairs, backend.queues))
  }

  /// What may be left undone in frames for the driver now.
  var receiveOffloads: NetworkOffloads {
    let wanted = state.features & (state.wantedOffloads ?? .max)
    guard wanted & Feature.guestChecksum != 0 else { return [] }
    var offloads: NetworkOffloads = .checksum
    if wanted & Feature.guestTCP4 != 0 { offloads.insert(.tcp4) }
    if wanted & Feature.guestTCP6 != 0 { offloads.insert(.tcp6) }
    let hasSegments = !offloads.isDisjoint(with: [.tcp4, .tcp6])
    if hasSegments, wanted & Feature.guestECN != 0 { offloads.insert(.congestion) }
    return offloads
  }

  package func saveState() -> State { state }

  package func reset() {
    // The cable stays as it is.
    state = State(filter: VirtioNetFilter(address: ownAddress), isPlugged: state.isPlugged)
    steering = FlowTable()
    _ = tellBackend()
    roomAgain()
  }

  package func start(features: UInt64) {
    state.features = features
    _ = tellBackend()
    roomAgain()
  }

  /// The machine may be on another wire now.
  package func resume() {
    if state.features & Feature.announce != 0 {
      state.mustAnnounce = true
      transport?.configurationChanged()
    }
  }

  // MARK: The link

  /// Whether frames pass: a plugged cable with something at its end.
  package var isLinkUp: Bool { state.isPlugged && backend?.isConnected == true }

  /// Plugs the cable in, or pulls it.
  package func setLink(_ isPlugged: Bool) {
    guard state.isPlugged != isPlugged else { return }
    state.isPlugged = isPlugged
    linkChanged()
  }

  /// Gives the card another address, whatever the driver made of the former one.
  ///
  /// - Parameter address: six bytes.
  package func changeAddress(to address: [UInt8]) {
    ownAddress = address
    guard state.filter.address != address else { return }
    state.filter.address = address
    transport?.configurationChanged()
  }

  private func linkChanged() {
    roomAgain()
    if state.features & Feature.status != 0 { transport?.configurationChanged() }
  }

  // MARK: Configuration space

  /// struct virtio_net_config (section 5.1.4): address, status, pairs.
  package func readConfiguration(_ offset: Int) -> UInt8 {
    switch offset {
    case 0..<6: state.filter.address[offset]
    case 6: (isLinkUp ? Status.linkUp : 0) | (state.mustAnnounce ? Status.announce : 0)
    case 8: UInt8(maximumPairs)
    default: 0
    }
  }

  /// Nothing of a modern device's can be written.
  package func writeConfiguration(_ offset: Int, _ value: UInt8) {}

  // MARK: Queues

  private var controlQueue: Int {
    state.features & Feature.multiqueue != 0 ? 2 * maximumPairs : 2
  }

  package func notify(queue: Int) {
    guard let transport else { return }
    if queue == controlQueue { return takeCommands(transport, queue) }
    if queue % 2 == 0 { return roomAgain() }
    for _ in 0..<Self.queueSize {
      guard let chain = transport.nextChain(queue) else { return }
      guard transmit(chain, transport, queue) else { return }
      transport.complete(chain, written: 0, on: queue)
    }
    transport.notifyAgain(queue)
  }

  // MARK: Control

  private func takeCommands(_ transport: any VirtioTransport, _ queue: Int) {
    for _ in 0..<Self.controlQueueSize {
      guard let chain = transport.nextChain(queue) else { return }
      // Address tables are the longest.
      guard chain.writableCount >= 1,
        let bytes = transport.read(
          chain, from: 0, count: min(chain.readableCount, VirtioNetFilter.longestTable))
      else {
        transport.fail("a command without room for its answer")
        return
      }
      let answer: UInt8 = carryOut(bytes) ? 0 : 1
      guard transport.write([answer], to: chain, at: 0) else { return }
      transport.complete(chain, written: 1, on: queue)
      // What the host does for these takes a while: others have a turn in between.
      if bytes.first == Command.queues || bytes.first == Command.offloads { break }
    }
    transport.notifyAgain(queue)
  }

  /// Classes of section 5.1.6.5.
  private func carryOut(_ command: [UInt8]) -> Bool {
    guard command.count >= 2 else { return false }
    let data = Array(command[2...])
    switch (command[0], command[1]) {
    case (0, let mode): return state.filter.set(mode, data)
    case (1, 0): return state.filter.setTable(data)
    case (1, 1):
      guard data.count == 6 else { return false }
      state.filter.address = data
      return true
    case (2, let operation): return state.filter.setVLAN(operation, data)
    case (3, 0):
      state.mustAnnounce = false
      return true
    case (Command.queues, 0):
      guard data.count == 2, state.features & Feature.multiqueue != 0 else { return false }
      let pairs = Int(data[0]) | Int(data[1]) << 8
      guard (1...maximumPairs).contains(pairs) else { return false }
      return use(pairs)
    case (Command.offloads, 0):
      guard data.count == 8, state.features & Feature.controlOffloads != 0 else { return false }
      return want(data.reversed().reduce(0) { $0 << 8 | UInt64($1) })
    default: return false
    }
  }

  private func use(_ pairs: Int) -> Bool {
    let former = state.pairs
    state.pairs = pairs
    guard tellBackend() else {
      state.pairs = former
      _ = tellBackend()
      return false
    }
    steering = FlowTable()
    return true
  }

  private func want(_ offloads: UInt64) -> Bool {
    guard offloads & ~(state.features & Feature.receiveOffloads) == 0 else { return false }
    state.wantedOffloads = offloads
    _ = tellBackend()
    return true
  }
}
